/** A graph run on the cuda backend, with the kernels of ours that it took. */

import type { KernelLaunch } from "../../src/backends/cuda/cuda_step.ts";
import type { KernelName } from "../../src/backends/cuda/kernel_names.ts";
import { createCudaBackend, type CudaBackendOptions } from "../../src/backends/cuda/mod.ts";
import type { Graph } from "../../src/ops/graph.ts";
import { buildPlan } from "../../src/plan/build.ts";
import type { HostTensor } from "../../src/tensor/host_tensor.ts";
import type { TestWeights } from "../backends/conformance/weights.ts";

/** Outputs in the order of their names, and what was captured to make them. */
export interface Launched {
  readonly values: Float32Array[];
  readonly launches: readonly KernelLaunch[];
  readonly names: readonly KernelName[];
}

/** Runs a graph once; `beforeLoading` is called when the backend has started. */
export async function launched(
  graph: Graph,
  weights: TestWeights,
  inputs: Readonly<Record<string, HostTensor>>,
  options: CudaBackendOptions,
  beforeLoading = () => {},
): Promise<Launched> {
  const plan = buildPlan(graph, { supports: () => true });
  const backend = await createCudaBackend(options);
  const launches: KernelLaunch[] = [];
  const enqueue = backend.enqueue.bind(backend);
  backend.enqueue = (launch) => {
    if (launch.kind === "kernel") launches.push(launch);
    enqueue(launch);
  };
  try {
    beforeLoading();
    const program = await backend.compile(plan, await backend.loadWeights(plan.weights, weights));
    for (const [name, value] of Object.entries(inputs)) program.write(name, value);
    await program.run();
    const values = [...graph.outputs.keys()].map((name) => program.read(name).toFloat32());
    return { values, launches, names: launches.map(({ kernel }) => kernel) };
  } finally {
    await backend.close();
  }
}
