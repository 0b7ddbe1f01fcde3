/**
 * Writes the table of docs/formats.md from the registry of methods; with `--check` it only fails when
 * the page is not what it would write.
 */

import { BACKEND_NAMES } from "../src/backends/select.ts";
import { type FormatRow, formatTable } from "../src/quantization/format_table.ts";
import { markdownTable, writeGeneratedPage } from "./generated_page.ts";

function cells(row: FormatRow): string[] {
  return [
    `\`${row.name}\``,
    row.bitsPerWeight?.toFixed(2) ?? "as stored",
    mark(row.onTheFly),
    mark(row.load),
    mark(row.save),
    row.activations,
    BACKEND_NAMES.join(", "),
    row.description,
  ];
}

function mark(possible: boolean): string {
  return possible ? "yes" : "no";
}

function table(): string {
  const head = [
    "`METHOD:FORMAT`",
    "bits per weight",
    "on the fly",
    "load",
    "save",
    "activations",
    "backends",
    "",
  ];
  return markdownTable([head, ...formatTable().map(cells)]);
}

writeGeneratedPage("docs/formats.md", "tools/generate_formats_doc.ts", table());
