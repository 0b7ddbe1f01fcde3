/** What plans say of a device's memory, beside what the stand-in driver counts. */

import assert from "node:assert/strict";
import { mkdtempSync, rmSync, symlinkSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { createCudaBackend } from "../../src/backends/cuda/mod.ts";
import { FluxPipeline } from "../../src/pipelines/flux.ts";
import { runHalftone } from "../cli/halftone_process.ts";
import { openStandIn, type StandIn } from "./stand_in.ts";

const MODEL = fileURLToPath(new URL("../../models/demo", import.meta.url));
const SIZES = { width: 32, height: 32, numInferenceSteps: 1, maxSequenceLength: 16 };
const MIB = 2 ** 20;

const standIn = openStandIn("plan_memory");
if (typeof standIn === "string") {
  console.log(`cuda: planned memory is skipped: ${standIn}`);
  test("cuda on the stand-in: planned memory", { skip: standIn }, () => {});
} else {
  registerAll(standIn);
}

function registerAll(standIn: StandIn): void {
  const { library, libraries } = standIn;
  const budgets = [["resident", undefined], ["streamed in groups", 4 * MIB]] as const;
  for (const [name, residentWeightBytes] of budgets) {
    test(`with weights ${name}, the device's peak is as planned, within 3 %`, async () => {
      const backend = await createCudaBackend({ ...libraries, residentWeightBytes });
      try {
        await using pipe = await FluxPipeline.fromPretrained(MODEL, { backend });
        const planned = pipe.plan(SIZES).memory;
        const { memory } = await pipe.generate({ prompt: "a red star", seed: 0, ...SIZES });
        const counted = standIn.count("devicePeak");
        assertNear(planned.devicePeak!, counted);
        assertNear(memory.devicePeak!, counted);
        assert.equal(planned.devicePeak! < planned.peak, residentWeightBytes !== undefined);
        if (residentWeightBytes) assert.ok(counted < planned.resident, `${counted} bytes`);
      } finally {
        await backend.close();
      }
      assert.equal(standIn.count("bytes"), 0);
    });
  }

  test("halftone doctor says which libraries are used, and where they lie", async () => {
    await withLibraries(library, async (environment) => {
      const { code, stdout, stderr } = await runHalftone(["doctor"], undefined, environment);
      assert.equal(code, 0, stderr);
      assert.match(stdout, /backend +cuda: stand-in/);
      assert.match(stdout, /^cuBLASLt 13\.1\.1 +libcublasLt\.so\.12$/m);
      assert.match(stdout, /^cuDNN 9\.20\.0 +libcudnn\.so\.9$/m);
    });
  });

  test("halftone plan --backend cuda says what the device will hold", async () => {
    await withLibraries(library, async (environment) => {
      const words = ["plan", "--backend", "cuda", "--width", "32", "--height", "32"];
      const { code, stdout, stderr } = await runHalftone(words, undefined, environment);
      assert.equal(code, 0, stderr);
      assert.match(stdout, /backend cuda/);
      assert.match(stdout, /peak [\d.]+ MiB, of the device's [\d.]+ MiB$/m);
    });
  });
}

/** The stand-in under the names that the loader looks for. */
async function withLibraries(
  library: string,
  use: (environment: { LD_LIBRARY_PATH: string }) => Promise<void>,
): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), "halftone-driver-"));
  try {
    for (const name of ["libcuda.so.1", "libcublasLt.so.12", "libcudnn.so.9"]) {
      symlinkSync(library, join(folder, name));
    }
    await use({ LD_LIBRARY_PATH: folder });
  } finally {
    rmSync(folder, { recursive: true });
  }
}

function assertNear(found: number, expected: number): void {
  assert.ok(Math.abs(found - expected) <= 0.03 * expected, `${found} bytes, not ${expected}`);
}
