/** jax-js on its WebAssembly backend. */

import { type Contender, timed } from "../suite/measure.ts";
import { packageFile, packageVersion } from "./packages.ts";

/** x [m, k] times w [k, n], jitted. */
export async function openJaxMatmul(
  x: Float32Array,
  w: Float32Array,
  { m, k, n }: { m: number; k: number; n: number },
  threads: number,
): Promise<Contender> {
  const version = packageVersion("@jax-js/jax");
  // It starts one worker per processor and has no option for fewer.
  Object.defineProperty(navigator, "hardwareConcurrency", { value: threads, configurable: true });
  const jax = await import(packageFile("@jax-js/jax/dist/index.js").href);
  await jax.init("wasm");
  jax.defaultDevice("wasm");
  const left = jax.numpy.array(x).reshape([m, k]);
  const right = jax.numpy.array(w).reshape([k, n]);
  await jax.blockUntilReady([left.ref, right.ref]);
  const multiply = jax.jit((a: unknown, b: unknown) => jax.numpy.matmul(a, b));
  await multiply(left.ref, right.ref).blockUntilReady(); // starts its workers
  let y: { ref: { data(): Promise<Float32Array> }; dispose(): void } | undefined;
  return {
    name: "jax-js",
    version,
    settings: { threads, device: "wasm" },
    run: () =>
      timed(async () => {
        y?.dispose();
        const result = multiply(left.ref, right.ref);
        await result.blockUntilReady();
        y = result;
      }),
    output: () => y!.ref.data(),
    close: () => Promise.resolve(),
  };
}
