import assert from "node:assert/strict";
import { after, test } from "node:test";
import type { Backend } from "../../src/backends/backend.ts";
import { createBackend } from "../../src/backends/select.ts";
import { FluxPipeline } from "../../src/pipelines/flux.ts";
import { goldenErrors, goldenNames, readGolden, relativeError } from "./goldens.ts";

const backends = new Map<string, Promise<Backend>>();

/** One backend of each kind for all runs. */
function backend(name: "reference" | "wasm"): Promise<Backend> {
  const made = backends.get(name) ?? createBackend({ backend: name, threads: 2 });
  backends.set(name, made);
  return made;
}

after(async () => {
  for (const made of backends.values()) await (await made).close();
});

for (const backendName of ["reference", "wasm"] as const) {
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
