/** The conformance suite on the cuda backend over the stand-in driver. */

import { test } from "node:test";
import { createCudaBackend } from "../../src/backends/cuda/mod.ts";
import { registerConformance, registerGuardZones } from "../backends/conformance/register.ts";
import { openStandIn } from "./stand_in.ts";
import { usesLibraries } from "./library_ops.ts";

const standIn = openStandIn("conformance");
if (typeof standIn === "string") {
  console.log(`cuda: the whole conformance suite is skipped: ${standIn}`);
  test("cuda on the stand-in: conformance", { skip: standIn }, () => {});
} else {
  const subject = {
    name: "cuda on the stand-in",
    create: () => createCudaBackend(standIn.libraries),
  };
  registerConformance(subject);
  registerGuardZones(subject);
  registerConformance({
    name: "cuda on the stand-in without cuBLASLt and cuDNN",
    create: () =>
      createCudaBackend({ ...standIn.libraries, cublasLtLibrary: false, cudnnLibrary: false }),
    skip: ({ op }) => usesLibraries(op) ? null : "the libraries have no part in it",
  });
}
