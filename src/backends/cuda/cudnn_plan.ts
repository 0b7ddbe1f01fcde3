/** How cuDNN may execute an operation: the first of its suggestions that keep numbers as they are meant. */

import type { HalftoneError } from "../../errors.ts";
import type { CudnnDescriptors } from "./cudnn_descriptors.ts";
import {
  CUDNN_ATTRIBUTE,
  CUDNN_DESCRIPTOR,
  CUDNN_HEURISTIC_MODE,
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
  /** Which of the library's suggestions it is made of; the same one for the same device, version and problem. */
  readonly suggestion: number;
}

/** What makes plans, and who is told of code that does not compile here. */
export interface PlanMaking {
  readonly calls: CudnnCalls;
  readonly descriptors: CudnnDescriptors;
  readonly target: CudnnTarget;
  readonly onFault?: (fault: HalftoneError) => void;
}

/** How many plans are wanted, and whether one suggestion is known to be the best. */
export interface WantedPlans {
  readonly most: number;
  readonly suggestion?: number | undefined;
}

/**
 * Plans within the problem's workspace, the library's first choice first: some of what is fast, or one of what works in
 * any case; none where the library has none. Each may have to be compiled.
 */
export function fittingPlans(
  making: PlanMaking,
  operation: number,
  problem: DnnProblem,
  { most, suggestion }: WantedPlans,
): CudnnPlan[] {
  const graph = describeGraph(making.descriptors, making.target, operation);
  const { a, fallback } = CUDNN_HEURISTIC_MODE;
  const configs = suggestions(making, graph, a);
  const known = suggestion === undefined ? [] : plansOf(making, configs, problem, 1, suggestion);
  if (known.length > 0) return known;
  const fast = plansOf(making, configs, problem, most);
  return fast.length > 0 ? fast : plansOf(making, suggestions(making, graph, fallback), problem, 1);
}

/** Plans of suggestions, or of one of them, that keep numbers and fit. */
function plansOf(
  making: PlanMaking,
  configs: readonly number[],
  problem: DnnProblem,
  most: number,
  only?: number,
): CudnnPlan[] {
  const { descriptors } = making;
  const plans: CudnnPlan[] = [];
  for (const [suggestion, config] of configs.entries()) {
    if (plans.length === most) break;
    if (only !== undefined && suggestion !== only) continue;
    if (!keepsNumbers(descriptors, config, problem)) continue;
    const plan = makePlan(making, config);
    if (plan === null) continue;
    const workspaceBytes = workspaceOf(descriptors, plan);
    if (workspaceBytes <= problem.workspaceBytes) plans.push({ plan, workspaceBytes, suggestion });
    else descriptors.drop(plan);
  }
  return plans;
}

function workspaceOf(descriptors: CudnnDescriptors, plan: number): number {
  const bytes = new BigInt64Array(new ArrayBuffer(8));
  descriptors.get(plan, CUDNN_ATTRIBUTE.plan.workspaceSize, CUDNN_TYPE.int64, bytes);
  return Number(bytes[0]);
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
  { calls, descriptors, target }: PlanMaking,
  graph: number,
  mode: number,
): number[] {
  const attribute = CUDNN_ATTRIBUTE.heuristic;
  const heuristic = descriptors.make(CUDNN_DESCRIPTOR.engineHeuristic);
  descriptors.setDescriptors(heuristic, attribute.operationGraph, graph);
  descriptors.setMember(
    heuristic,
    attribute.mode,
    CUDNN_TYPE.heuristicMode,
    mode,
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
  { calls, descriptors, target, onFault }: PlanMaking,
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
  if (meaning === "not supported") return null;
  const error = calls.errorOf(status, "cudnnBackendFinalize", descriptors.doing);
  if (status !== CUDNN_STATUS.compilationFailed) throw error;
  onFault?.(error);
  return null;
}
