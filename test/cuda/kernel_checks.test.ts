/** What the stand-in finds while a kernel runs fails its launch, as on a device. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { createCudaBackend } from "../../src/backends/cuda/mod.ts";
import { address, integers, packParameters } from "../../src/backends/cuda/parameters.ts";
import { openStandIn } from "./stand_in.ts";

const standIn = openStandIn("kernel_checks");
const skip = typeof standIn === "string" && standIn;
if (skip) console.log(`cuda: the stand-in's checks are not tried: ${skip}`);

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
