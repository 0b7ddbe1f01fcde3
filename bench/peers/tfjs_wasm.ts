/** TensorFlow.js on its WebAssembly backend. */

import { type Contender, timed } from "../suite/measure.ts";
import { packageVersion, requirePackage } from "./packages.ts";

/** x [m, k] times w [k, n]. It replaces the global Worker by node's: open it after jax-js. */
export async function openTfjsMatmul(
  x: Float32Array,
  w: Float32Array,
  { m, k, n }: { m: number; k: number; n: number },
  threads: number,
): Promise<Contender> {
  const version = packageVersion("@tensorflow/tfjs-backend-wasm");
  const tf = requirePackage("@tensorflow/tfjs-core");
  const backend = requirePackage("@tensorflow/tfjs-backend-wasm");
  backend.setThreadsCount(threads);
  await tf.setBackend("wasm");
  const left = tf.tensor2d(x, [m, k]);
  const right = tf.tensor2d(w, [k, n]);
  let y: Float32Array | undefined;
  return {
    name: "tfjs-wasm",
    version,
    settings: {
      threads,
      simd: await tf.env().getAsync("WASM_HAS_SIMD_SUPPORT"),
      threadedBuild: await tf.env().getAsync("WASM_HAS_MULTITHREAD_SUPPORT"),
    },
    run: () =>
      timed(() => {
        const product = tf.matMul(left, right);
        y = product.dataSync(); // its way to wait
        product.dispose();
        return Promise.resolve();
      }),
    output: () => Promise.resolve(y!),
    close: () => {
      tf.dispose([left, right]);
      return Promise.resolve();
    },
  };
}
