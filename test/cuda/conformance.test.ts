/** The conformance suite on the cuda backend over the stand-in driver. */

import { test } from "node:test";
import { createCudaBackend } from "../../src/backends/cuda/mod.ts";
import { registerConformance, registerGuardZones } from "../backends/conformance/register.ts";
import { openStandIn } from "./stand_in.ts";

const standIn = openStandIn("conformance");
if (typeof standIn === "string") {
  console.log(`cuda: the whole conformance suite is skipped: ${standIn}`);
  test("cuda on the stand-in: conformance", { skip: standIn }, () => {});
} else {
  const subject = {
    name: "cuda on the stand-in",
    create: () =>
      createCudaBackend({ driverLibrary: standIn.library, cublasLtLibrary: standIn.library }),
  };
  registerConformance(subject);
  registerGuardZones(subject);
  const { library: driverLibrary } = standIn;
  registerConformance({
    name: "cuda on the stand-in without cuBLASLt",
    create: () => createCudaBackend({ driverLibrary, cublasLtLibrary: false }),
    skip: ({ op }) => op === "linear" ? null : "only linear layers ask cuBLASLt",
  });
}
