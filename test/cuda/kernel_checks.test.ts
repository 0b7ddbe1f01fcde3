/** What the stand-in and the built modules must have in common, and what fails a kernel while it runs. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { loadImage } from "../../src/backends/cuda/kernel_images.ts";
import type { KernelName } from "../../src/backends/cuda/kernel_names.ts";
import { createCudaBackend } from "../../src/backends/cuda/mod.ts";
import { address, integers, packParameters } from "../../src/backends/cuda/parameters.ts";
import { readCubin } from "./cubin.ts";
import { openStandIn } from "./stand_in.ts";

const standIn = openStandIn("kernel_checks");
const skip = typeof standIn === "string" && standIn;
if (skip) console.log(`cuda: the stand-in's checks are not tried: ${skip}`);

test("parameters take the same bytes on the host and in the built modules", { skip }, async () => {
  if (typeof standIn === "string") return;
  for (const capability of [80, 120]) {
    for (const [name, { parameterBytes }] of readCubin((await loadImage(capability))!).kernels) {
      assert.equal(parameterBytes, standIn.parameterBytesOf(name as KernelName), name);
    }
  }
});

test(
  "an address that is less aligned than what is written there fails a launch",
  { skip },
  async () => {
    if (typeof standIn === "string") return;
    for (const [beside, fails] of [[0, false], [4, true]] as const) {
      const backend = await createCudaBackend({ ...standIn.libraries, cublasLtLibrary: false });
      const { device } = backend;
      const codes = device.allocate(64, "scratch", "a test");
      const parameters = packParameters([address(codes + beside), ...integers(1, 0)]);
      backend.enqueue({ kind: "kernel", kernel: "sign_codes", grid: [1, 1, 1], parameters });
      const wait = () => device.synchronize("run a kernel");
      if (fails) assert.throws(wait, /CUDA_ERROR_LAUNCH_FAILED/);
      else wait();
      await backend.close();
    }
    standIn.assertNothingHeld();
  },
);
