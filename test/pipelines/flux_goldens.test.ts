import assert from "node:assert/strict";
import { after, test } from "node:test";
import type { Backend } from "../../src/backends/backend.ts";
import { createReferenceBackend } from "../../src/backends/reference/mod.ts";
import { createBackend } from "../../src/backends/select.ts";
import { FluxPipeline } from "../../src/pipelines/flux.ts";
import { goldenErrors, goldenNames, readGolden, relativeError } from "./goldens.ts";

/** The third takes every optional op apart, as a new backend does at first. */
const BACKENDS: Record<string, () => Backend | Promise<Backend>> = {
  reference: () => createReferenceBackend(),
  wasm: () => createBackend({ backend: "wasm", threads: 2 }),
  "reference without fused ops": () => createReferenceBackend({ fused: false }),
};

const backends = new Map<string, Backend | Promise<Backend>>();

/** One backend of each kind for all runs. */
async function backend(name: string): Promise<Backend> {
  const made = backends.get(name) ?? BACKENDS[name]();
  backends.set(name, made);
  return await made;
}

after(async () => {
  for (const made of backends.values()) await (await made).close();
});

for (const backendName of Object.keys(BACKENDS)) {
  for (const name of goldenNames()) {
    test(`"${name}" on ${backendName} gives the latents and pictures of Diffusers`, async () => {
      const golden = readGolden(name);
      await using pipe = await FluxPipeline.fromPretrained(golden.folder, {
        backend: await backend(backendName),
        onWarning: () => {}, // some runs are odd on purpose
      });
      const afterStep: Float32Array[] = [];
      const output = await pipe.generate({
        ...golden.options,
        onStep: ({ latents }) => void afterStep.push(latents.toFloat32()),
      });
      const errors = goldenErrors(golden, output);
      assert.ok(errors.latents < 1e-4, `latents differ by ${errors.latents}`);
      assert.ok(errors.psnr > 50, `PSNR ${errors.psnr}`);
      const everyStep = golden.tensors.get("latents")!;
      assert.equal(afterStep.length, everyStep.shape[0]);
      const length = everyStep.size / afterStep.length;
      for (const [step, latents] of afterStep.entries()) {
        const expected = everyStep.toFloat32().subarray(step * length, (step + 1) * length);
        assert.ok(relativeError(latents, expected) < 1e-4, `step ${step}`);
      }
      const [count, height, width] = golden.tensors.get("image")!.shape;
      assert.equal(output.images.length, count);
      assert.deepEqual([output.width, output.height], [width, height]);
    });
  }
}
