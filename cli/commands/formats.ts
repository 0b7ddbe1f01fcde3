/** `halftone formats`: the formats that `--quantize` takes. */

import { Command } from "commander";
import { formatTable } from "../../src/quantization/format_table.ts";
import type { FormatRow } from "../../src/quantization/format_table.ts";
import { writeText } from "../../src/runtime/system.ts";
import { tableText } from "../byte_text.ts";

/** The command. */
export function formatsCommand(): Command {
  return new Command("formats")
    .description("List the quantization formats, with their bits per weight")
    .option("--json", "print one JSON object")
    .action(formats);
}

function formats({ json }: { json?: true }): void {
  const rows = formatTable();
  writeText(`${json ? JSON.stringify({ formats: rows }, null, 2) : textOf(rows)}\n`);
}

function textOf(rows: readonly FormatRow[]): string {
  const head = ["format", "bits per weight", "activations", ""];
  const lines = rows.map((row) => [
    row.name,
    row.bitsPerWeight?.toFixed(2) ?? "",
    row.activations,
    noted(row),
  ]);
  return tableText([head, ...lines], [1]);
}

/** The description, and what cannot be done with the format. */
function noted({ description, onTheFly, load, save }: FormatRow): string {
  const missing = Object.entries({ "on the fly": onTheFly, load, save })
    .filter(([, possible]) => !possible)
    .map(([name]) => `no ${name}`);
  return [description, ...missing].join("; ");
}
