/** Chooses how cuDNN executes an operation: the first of its suggestions that keeps numbers as they are meant. */

import type { CudnnDescriptors } from "./cudnn_descriptors.ts";
import {
  CUDNN_ATTRIBUTE,
  CUDNN_DESCRIPTOR,
  CUDNN_HEURISTIC_MODE_A,
  CUDNN_NOTE,
  CUDNN_NOTES,
  CUDNN_STATUS,
  CUDNN_TYPE,
} from "./cudnn_symbols.ts";
import type { CudnnCalls } from "./cudnn_calls.ts";
import type { DnnProblem } from "./dnn_problem.ts";

/** What to choose for: a started library on a device, or a device that a descriptor tells of. */
export type CudnnTarget =
  | { readonly kind: "handle"; readonly handle: number }
  | { readonly kind: "described"; readonly deviceProperties: number };

/** A finalized execution plan. */
export interface CudnnPlan {
  readonly plan: number;
  readonly workspaceBytes: number;
}

/** A plan within the problem's workspace, or null when the library has none. */
export function choosePlan(
  calls: CudnnCalls,
  descriptors: CudnnDescriptors,
  target: CudnnTarget,
  operation: number,
  problem: DnnProblem,
): CudnnPlan | null {
  const graph = describeGraph(descriptors, target, operation);
  for (const config of suggestions(calls, descriptors, target, graph)) {
    if (!keepsNumbers(descriptors, config, problem)) continue;
    const plan = makePlan(calls, descriptors, target, config);
    if (plan === null) continue;
    const workspace = new BigInt64Array(new ArrayBuffer(8));
    descriptors.get(plan, CUDNN_ATTRIBUTE.plan.workspaceSize, CUDNN_TYPE.int64, workspace);
    const workspaceBytes = Number(workspace[0]);
    if (workspaceBytes <= problem.workspaceBytes) return { plan, workspaceBytes };
  }
  return null;
}

function describeGraph(
  descriptors: CudnnDescriptors,
  target: CudnnTarget,
  operation: number,
): number {
  const attribute = CUDNN_ATTRIBUTE.graph;
  const graph = descriptors.make(CUDNN_DESCRIPTOR.operationGraph);
  descriptors.setDescriptors(graph, attribute.operations, operation);
  if (target.kind === "handle") {
    descriptors.setPointers(graph, attribute.handle, CUDNN_TYPE.handle, target.handle);
  }
  descriptors.finalize(graph);
  return graph;
}

/** Engines with their settings, best first. Fewer may come than were counted. */
function suggestions(
  calls: CudnnCalls,
  descriptors: CudnnDescriptors,
  target: CudnnTarget,
  graph: number,
): number[] {
  const attribute = CUDNN_ATTRIBUTE.heuristic;
  const heuristic = descriptors.make(CUDNN_DESCRIPTOR.engineHeuristic);
  descriptors.setDescriptors(heuristic, attribute.operationGraph, graph);
  descriptors.setMember(
    heuristic,
    attribute.mode,
    CUDNN_TYPE.heuristicMode,
    CUDNN_HEURISTIC_MODE_A,
  );
  if (target.kind === "described") {
    descriptors.setDescriptors(heuristic, attribute.deviceProperties, target.deviceProperties);
  }
  if (!calls.isSupported("cudnnBackendFinalize", descriptors.doing, heuristic)) return [];
  const { descriptor } = CUDNN_TYPE;
  const count = descriptors.get(heuristic, attribute.results, descriptor, null);
  if (count === 0) return [];
  const configs = new BigInt64Array(new ArrayBuffer(8 * count));
  for (let i = 0; i < count; i++) {
    configs[i] = BigInt(descriptors.make(CUDNN_DESCRIPTOR.engineConfig));
  }
  const found = descriptors.get(heuristic, attribute.results, descriptor, configs);
  return [...configs.subarray(0, found)].map(Number);
}

/** No rounding beyond what the types say, no sums in 16 bits, the same result every time. */
function keepsNumbers(
  descriptors: CudnnDescriptors,
  config: number,
  problem: DnnProblem,
): boolean {
  const engine = descriptors.make(CUDNN_DESCRIPTOR.engine);
  const place = new BigInt64Array(new ArrayBuffer(8)).fill(BigInt(engine));
  descriptors.get(config, CUDNN_ATTRIBUTE.engineConfig.engine, CUDNN_TYPE.descriptor, place);
  const notes = new Int32Array(new ArrayBuffer(4 * CUDNN_NOTES));
  const { numericalNote } = CUDNN_TYPE;
  const count = descriptors.get(
    engine,
    CUDNN_ATTRIBUTE.engine.numericalNote,
    numericalNote,
    notes,
  );
  const isExact = problem.type === "float32" && !problem.tensorFloat32;
  return notes.subarray(0, count).every((note) =>
    note === CUDNN_NOTE.strictNanPropagation || (note === CUDNN_NOTE.tensorCore && !isExact)
  );
}

/** Null where the engine turns out not to fit, or its code does not compile here. */
function makePlan(
  calls: CudnnCalls,
  descriptors: CudnnDescriptors,
  target: CudnnTarget,
  config: number,
): number | null {
  const attribute = CUDNN_ATTRIBUTE.plan;
  const plan = descriptors.make(CUDNN_DESCRIPTOR.executionPlan);
  descriptors.setDescriptors(plan, attribute.engineConfig, config);
  if (target.kind === "handle") {
    descriptors.setPointers(plan, attribute.handle, CUDNN_TYPE.handle, target.handle);
  } else {
    descriptors.setDescriptors(plan, attribute.deviceProperties, target.deviceProperties);
  }
  const status = calls.try("cudnnBackendFinalize", plan);
  const meaning = calls.meaningOf(status);
  if (meaning === "success") return plan;
  if (meaning === "not supported" || status === CUDNN_STATUS.compilationFailed) return null;
  throw calls.errorOf(status, "cudnnBackendFinalize", descriptors.doing);
}
