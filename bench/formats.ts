/**
 * `halftone bench formats` on the demo model and on one of middle size (bench/mid_model.ts), whose tables
 * and sheets docs/formats holds.
 *
 *     deno run -A bench/formats.ts [--output-dir docs/formats] [options of bench formats but --model]
 */

import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { createProgram } from "../cli/program.ts";
import { writeMidModel } from "./mid_model.ts";

async function benchFormats(model: string): Promise<void> {
  const output = fileURLToPath(new URL("../docs/formats", import.meta.url));
  const words = ["--output-dir", output, ...process.argv.slice(2), "--model", model];
  await createProgram().parseAsync(["bench", "formats", ...words], { from: "user" });
}

const folder = mkdtempSync(join(tmpdir(), "halftone-formats-"));
try {
  await benchFormats(fileURLToPath(new URL("../models/demo", import.meta.url)));
  await writeMidModel(join(folder, "mid"));
  await benchFormats(join(folder, "mid"));
} finally {
  rmSync(folder, { recursive: true });
}
