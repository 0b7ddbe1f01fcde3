/** Runs plans of test graphs on the reference backend. */

import { createReferenceBackend } from "../../src/backends/reference/mod.ts";
import type { WeightSource } from "../../src/backends/backend.ts";
import type { Plan } from "../../src/plan/plan.ts";
import type { HostTensor } from "../../src/tensor/host_tensor.ts";

/** All outputs of a plan, run twice in the same memory so that leftovers of the first run would show. */
export async function runPlan(
  plan: Plan,
  weights: WeightSource,
  inputs: Readonly<Record<string, HostTensor>>,
): Promise<Record<string, HostTensor>> {
  const backend = createReferenceBackend();
  try {
    const loaded = await backend.loadWeights(plan.weights, weights);
    const program = await backend.compile(plan, loaded);
    for (const [name, tensor] of Object.entries(inputs)) program.write(name, tensor);
    await program.run();
    await program.run();
    const names = Object.keys(plan.outputs);
    return Object.fromEntries(names.map((name) => [name, program.read(name)]));
  } finally {
    await backend.close();
  }
}
