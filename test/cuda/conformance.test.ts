/** The conformance suite on the cuda backend over the stand-in driver. */

import { test } from "node:test";
import { createCudaBackend } from "../../src/backends/cuda/mod.ts";
import { attentionInt8Cases } from "../backends/conformance/attention_int8_cases.ts";
import { runCase } from "../backends/conformance/cases.ts";
import { registerConformance, registerGuardZones } from "../backends/conformance/register.ts";
import { openStandIn, THREAD_ORDERS } from "./stand_in.ts";
import { usesLibraries } from "./library_ops.ts";
import { assertFails } from "../quantization/support.ts";
import { lackedByCuda } from "./unsupported_cases.ts";

const standIn = openStandIn("conformance");
if (typeof standIn === "string") {
  console.log(`cuda: the whole conformance suite is skipped: ${standIn}`);
  test("cuda on the stand-in: conformance", { skip: standIn }, () => {});
} else {
  const subject = {
    name: "cuda on the stand-in",
    create: () => createCudaBackend(standIn.libraries),
    skip: lackedByCuda,
  };
  registerConformance(subject);
  // What holds whatever the order of threads and blocks holds in the usual one too.
  registerGuardZones({ ...subject, create: () => inOrder("reversed", subject.create) });
  test("cuda refuses attention in int8, naming the option", async () => {
    const backend = await subject.create();
    const [first] = attentionInt8Cases();
    await assertFails(() => runCase(backend, first), "unsupported", /"attention".*wasm/s);
    await backend.close();
  });
  const inOrder = <Made>(order: keyof typeof THREAD_ORDERS, create: () => Made): Made => {
    standIn.set({ threadOrder: THREAD_ORDERS[order] });
    return create();
  };
  registerConformance({
    name: "cuda on the stand-in without cuBLASLt and cuDNN",
    create: () =>
      inOrder(
        "shuffled",
        () =>
          createCudaBackend({ ...standIn.libraries, cublasLtLibrary: false, cudnnLibrary: false }),
      ),
    skip: (testCase) =>
      lackedByCuda(testCase) ??
        (usesLibraries(testCase.op) ? null : "the libraries have no part in it"),
  });
}
