/** onnxruntime-node, which runs in node alone: in a process of its own. */

import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { startChild } from "../suite/child_contender.ts";
import type { Contender } from "../suite/measure.ts";
import { packageVersion } from "./packages.ts";

/** A session over a model from onnx_model.ts; `x` is its input. */
export async function openOnnxRuntimeNode(
  model: Uint8Array,
  x: Float32Array<ArrayBuffer>,
  [rows, columns]: readonly [number, number],
  threads: number,
): Promise<Contender> {
  packageVersion("onnxruntime-node");
  const folder = mkdtempSync(join(tmpdir(), "halftone-bench-"));
  const [modelPath, inputPath] = [join(folder, "model.onnx"), join(folder, "x.f32")];
  try {
    writeFileSync(modelPath, model);
    writeFileSync(inputPath, new Uint8Array(x.buffer));
    const script = fileURLToPath(new URL("./onnxruntime_node.mjs", import.meta.url));
    const words = [script, modelPath, inputPath, `${rows}`, `${columns}`, `${threads}`];
    return await startChild("onnxruntime-node", "node", words);
  } finally {
    rmSync(folder, { recursive: true });
  }
}
