/** onnxruntime-web on its WebAssembly backend. */

import { type Contender, timed } from "../suite/measure.ts";
import { packageFile, packageVersion } from "./packages.ts";

/**
 * A session over a model from onnx_model.ts; `x` is its input.
 * It replaces the global Worker by node's: open it after jax-js.
 */
export async function openOnnxRuntimeWeb(
  model: Uint8Array,
  x: Float32Array,
  shape: readonly [number, number],
  threads: number,
): Promise<Contender> {
  const version = packageVersion("onnxruntime-web");
  const ort = await import(packageFile("onnxruntime-web/dist/ort.wasm.bundle.min.mjs").href);
  ort.env.wasm.numThreads = threads;
  const session = await ort.InferenceSession.create(model, {
    executionProviders: ["wasm"],
    graphOptimizationLevel: "all",
  });
  const feeds = { x: new ort.Tensor("float32", x, shape) };
  let y: { data: Float32Array; dispose(): void } | undefined;
  return {
    name: "onnxruntime-web",
    version,
    settings: { threads, build: "simd-threaded", provider: "wasm" },
    run: () =>
      timed(async () => {
        y?.dispose();
        y = (await session.run(feeds)).y;
      }),
    output: () => Promise.resolve(y!.data),
    close: () => session.release(),
  };
}
