/** `halftone doctor`: what this machine and runtime have, and which formats of FLUX.1 fit. */

import { Command } from "commander";
import type { NativeLibrary } from "../../src/backends/backend.ts";
import { chooseBackend } from "../../src/backends/select.ts";
import { hasRelaxedSimd } from "../../src/backends/wasm/kernel_module.ts";
import { formatTable } from "../../src/quantization/format_table.ts";
import {
  cpuCount,
  cpuModel,
  type MachineMemory,
  memoryBytes,
  platformName,
  runtimeName,
  runtimeVersion,
  writeText,
} from "../../src/runtime/system.ts";
import { hasSharedWorkers } from "../../src/runtime/workers.ts";
import { byteText, tableText } from "../byte_text.ts";

/** What a format of FLUX.1 would take. */
interface Fit {
  readonly format: string;
  /** Bytes of the largest component, the transformer; the others take their turn in memory. */
  readonly bytes: number;
  /** Undefined when the machine hides its memory. */
  readonly fits: boolean | undefined;
}

/** Everything that is said, for `--json`. */
interface Findings {
  readonly runtime: string;
  readonly platform: string;
  readonly processor: string | undefined;
  readonly processors: number;
  readonly memory: MachineMemory | undefined;
  readonly sharedWorkers: boolean;
  readonly relaxedSimd: boolean;
  readonly backend: string;
  readonly reason: string;
  readonly libraries: readonly NativeLibrary[];
  readonly flux: readonly Fit[];
}

/** Parameters of FLUX.1's transformer; nearly all of them are weights of linear layers. */
const FLUX_PARAMETERS = 11.9e9;
/** Room for intermediates at 1024x1024, the process and the rest of the machine. */
const ROOM_BYTES = 4 * 2 ** 30;

/** The command. */
export function doctorCommand(): Command {
  return new Command("doctor")
    .description("Say what this machine has, and which formats of FLUX.1 fit it")
    .option("--json", "print one JSON object")
    .action(doctor);
}

async function doctor(options: { json?: true }): Promise<void> {
  const findings = await examine();
  writeText(`${options.json ? JSON.stringify(findings, null, 2) : textOf(findings)}\n`);
}

async function examine(): Promise<Findings> {
  const { backend, reason } = await chooseBackend({ backend: "auto" });
  const memory = memoryBytes();
  const { libraries = [] } = backend;
  await backend.close();
  return {
    runtime: `${runtimeName()} ${runtimeVersion()}`,
    platform: platformName(),
    processor: cpuModel(),
    processors: cpuCount(),
    memory,
    sharedWorkers: hasSharedWorkers(),
    relaxedSimd: hasRelaxedSimd(),
    backend: backend.name,
    reason,
    libraries,
    flux: bitsOfFormats().map(([name, bits]) => fitOf(name, bits, memory)),
  };
}

/** Dense types, and every format of every method as it stores the typical layer. */
function bitsOfFormats(): (readonly [name: string, bits: number])[] {
  const rows = formatTable().flatMap(({ name, bitsPerWeight }) =>
    bitsPerWeight === null ? [] : [[name, bitsPerWeight] as const]
  );
  return [["float32", 32], ["bfloat16", 16], ...rows];
}

function fitOf(format: string, bits: number, memory: MachineMemory | undefined): Fit {
  const bytes = Math.round(FLUX_PARAMETERS * bits / 8);
  return { format, bytes, fits: memory && bytes + ROOM_BYTES <= memory.total };
}

function textOf(found: Findings): string {
  const rows = [
    ["runtime", found.runtime],
    ["platform", found.platform],
    ["processor", `${found.processor ?? "unknown"}, ${found.processors} threads`],
    ["memory", found.memory ? memoryText(found.memory) : "hidden"],
    ["shared workers", yesNo(found.sharedWorkers)],
    ["relaxed SIMD", yesNo(found.relaxedSimd)],
    ["backend", found.reason],
    ...found.libraries.map(({ name, file }) => [name, file]),
  ];
  const fits = found.flux.map(({ format, bytes, fits }) => [
    `  ${format}`,
    byteText(bytes),
    fits === undefined ? "" : fits ? "fits" : "does not fit",
  ]);
  return `${tableText(rows, [])}\n\nFLUX.1 (12B) transformer weights by format:\n${
    tableText(fits, [1])
  }`;
}

function memoryText({ total, free }: MachineMemory): string {
  return `${byteText(total)}, ${byteText(free)} free`;
}

function yesNo(value: boolean): string {
  return value ? "yes" : "no";
}
