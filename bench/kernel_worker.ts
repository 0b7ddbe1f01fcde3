/** A worker that runs a microkernel as often as it is told, so that several can run at once. */

import { compileKernels } from "../src/backends/wasm/kernel_module.ts";
import { openMicrokernels } from "./kernel_rates.ts";

/** What a worker is told: run this kernel of kernels-wasm/src/kernel_rates.rs so often. */
export interface KernelJob {
  readonly kind: number;
  readonly times: number;
}

const { module } = await compileKernels({ strict: false, shared: true });
const run = await openMicrokernels(module);
const scope = globalThis as unknown as {
  onmessage: (event: MessageEvent<KernelJob>) => void;
  postMessage(message: "ready" | "done"): void;
};
scope.onmessage = ({ data: { kind, times } }) => {
  run(kind, times);
  scope.postMessage("done");
};
scope.postMessage("ready");
