/** `halftone inspect`: the tensors, formats and sizes of a model, a component or one file. */

import { Command } from "commander";
import { HalftoneError } from "../../src/errors.ts";
import { type Checkpoint, openCheckpoint, readConfig } from "../../src/io/checkpoint.ts";
import { isModelFolder, listComponents } from "../../src/io/model_folder.ts";
import type { Quantizer } from "../../src/quantization/quantizer.ts";
import { resolveQuantizer } from "../../src/quantization/weights.ts";
import { statPath } from "../../src/runtime/files.ts";
import { writeText } from "../../src/runtime/system.ts";
import { formatName } from "../format_name.ts";
import { byteText, tableText } from "../byte_text.ts";

/** A tensor as it is listed. */
interface TensorRow {
  readonly name: string;
  format: string;
  shape: readonly number[];
  /** In the file, with everything that belongs to it. */
  bytes: number;
}

/** A component, or the file that was given. */
interface ComponentReport {
  readonly name: string;
  readonly path: string;
  readonly bytes: number;
  /** Bytes per format. */
  readonly formats: Readonly<Record<string, number>>;
  readonly tensors: readonly TensorRow[];
}

/** The command. */
export function inspectCommand(): Command {
  return new Command("inspect")
    .description("List the tensors, formats and sizes of a model folder, a component or a file")
    .argument("<path>", "a model folder, a component's folder, or a .safetensors file")
    .option("--json", "print one JSON object")
    .action(inspect);
}

async function inspect(path: string, options: { json?: true }): Promise<void> {
  const components = await inspectPath(path);
  const bytes = components.reduce((sum, component) => sum + component.bytes, 0);
  const text = options.json
    ? JSON.stringify({ path, bytes, components }, null, 2)
    : [...components.map(componentText), `total ${byteText(bytes)}`].join("\n\n");
  writeText(`${text}\n`);
}

async function inspectPath(path: string): Promise<ComponentReport[]> {
  if (await statPath(path) === undefined) {
    throw new HalftoneError("missing_file", "Cannot inspect", {
      file: path,
      found: "nothing at this path",
      remedy: "Check the path.",
    });
  }
  if (!await isModelFolder(path)) return [await inspectWeights("weights", path)];
  const withWeights = (await listComponents(path)).filter((component) => component.weights);
  const reports: ComponentReport[] = [];
  for (const { name, path } of withWeights) reports.push(await inspectWeights(name, path));
  return reports;
}

async function inspectWeights(name: string, path: string): Promise<ComponentReport> {
  const isFolder = (await statPath(path))?.kind === "folder";
  const config = isFolder ? await readConfig(path) : {};
  const checkpoint = await openCheckpoint(path, { variantFallback: true });
  try {
    const { quantizer } = resolveQuantizer(checkpoint, { config });
    return reportOf(name, path, await rowsOf(checkpoint, quantizer));
  } finally {
    await checkpoint.close();
  }
}

/** A quantized weight is one row: its codes with its scales and whatever else accompanies it. */
async function rowsOf(checkpoint: Checkpoint, quantizer: Quantizer | null): Promise<TensorRow[]> {
  const rows = new Map<string, TensorRow>();
  for (const { name: stored, dtype, shape, bytes } of checkpoint.entries.values()) {
    if (quantizer?.isCompanion(stored, checkpoint)) continue;
    const name = quantizer?.weightOf?.(stored, checkpoint) ?? stored;
    const row = { name, format: dtype as string, shape, bytes };
    rows.set(moduleOrName(name), row);
    if (!quantizer?.isStored(name, checkpoint)) continue;
    const info = await quantizer.describeStored(name, checkpoint);
    row.shape = info.shape;
    row.format = formatName(info, quantizer.config);
  }
  for (const { name, bytes } of checkpoint.entries.values()) {
    if (quantizer?.isCompanion(name, checkpoint)) ownerOf(name, rows).bytes += bytes;
  }
  return [...rows.values()];
}

/** `a.b.weight` and what accompanies it, such as `a.b.SCB`, meet under `a.b`. */
function moduleOrName(name: string): string {
  return name.endsWith(".weight") ? name.slice(0, -".weight".length) : name;
}

/** The row of the nearest module above a companion; the companion itself when there is none. */
function ownerOf(name: string, rows: Map<string, TensorRow>): TensorRow {
  for (let end = name.length; end > 0; end = name.lastIndexOf(".", end - 1)) {
    const row = rows.get(name.slice(0, end));
    if (row !== undefined) return row;
  }
  const row = { name, format: "companion", shape: [], bytes: 0 };
  rows.set(name, row);
  return row;
}

function reportOf(name: string, path: string, tensors: readonly TensorRow[]): ComponentReport {
  const formats: Record<string, number> = {};
  let bytes = 0;
  for (const tensor of tensors) {
    bytes += tensor.bytes;
    formats[tensor.format] = (formats[tensor.format] ?? 0) + tensor.bytes;
  }
  return { name, path, bytes, formats, tensors };
}

function componentText({ name, path, bytes, formats, tensors }: ComponentReport): string {
  const kinds = Object.entries(formats).map(([format, size]) => `${byteText(size)} ${format}`);
  const rows = tensors.map((tensor) => [
    `  ${tensor.name}`,
    `[${tensor.shape.join(", ")}]`,
    tensor.format,
    byteText(tensor.bytes),
  ]);
  const count = `${tensors.length} tensors, ${byteText(bytes)} (${kinds.join(", ")})`;
  return `${name}: ${count}\n${path}\n${tableText(rows, [3])}`;
}
