/**
 * `halftone bench formats` on the demo model and on one of middle size (bench/mid_model.ts), or on one of
 * them, whose tables and sheets docs/formats holds.
 *
 *     deno run -A bench/formats.ts [demo|mid] [--output-dir docs/formats] [options of bench formats but --model]
 */

import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { failureOf } from "../cli/failure.ts";
import { createProgram } from "../cli/program.ts";
import { writeMidModel } from "./mid_model.ts";

const [first, ...rest] = process.argv.slice(2);
const only = first === "demo" || first === "mid" ? first : undefined;
const options = only === undefined ? process.argv.slice(2) : rest;

async function benchFormats(model: string): Promise<void> {
  const output = fileURLToPath(new URL("../docs/formats", import.meta.url));
  const words = ["--output-dir", output, ...options];
  await createProgram().parseAsync(["bench", "formats", ...words, "--model", model], {
    from: "user",
  });
}

const folder = mkdtempSync(join(tmpdir(), "halftone-formats-"));
try {
  if (only !== "mid") await benchFormats(fileURLToPath(new URL("../models/demo", import.meta.url)));
  if (only !== "demo") {
    await writeMidModel(join(folder, "mid"));
    await benchFormats(join(folder, "mid"));
  }
} catch (error) {
  const { line, exitCode } = failureOf(error);
  console.error(line);
  process.exitCode = exitCode;
} finally {
  rmSync(folder, { recursive: true });
}
