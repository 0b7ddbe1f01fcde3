/** What a conformance case is, how it runs on a backend, and how its result is judged. */

import type { Backend, Program } from "../../../src/backends/backend.ts";
import { Graph, type Tensor } from "../../../src/ops/graph.ts";
import type { OpName } from "../../../src/ops/op_table.ts";
import { buildPlan } from "../../../src/plan/build.ts";
import type { Plan } from "../../../src/plan/plan.ts";
import { HostTensor } from "../../../src/tensor/host_tensor.ts";
import type { Shape } from "../../../src/tensor/shape.ts";
import { type BudgetName, ERROR_BUDGETS } from "../error_budgets.ts";
import { TestWeights } from "./weights.ts";

/** One graph with its inputs and what must come out. */
export interface ConformanceCase {
  /** Unique within the suite. */
  readonly name: string;
  readonly op: OpName;
  readonly budget: BudgetName;
  readonly inputs: Readonly<Record<string, HostTensor>>;
  readonly weights?: TestWeights;
  /**
   * Errors are measured against the expectation, or against this where all of that is smaller: the
   * tail of an activation is a small difference of large numbers, and counts as such.
   */
  readonly magnitude?: number;
  /** Captures the op from the inputs; what it returns becomes the output. */
  build(graph: Graph, inputs: Readonly<Record<string, Tensor>>): Tensor;
  /** The expected output in float64, row-major. */
  expected(): ArrayLike<number>;
}

/** How a precision changes what is expected of an op. */
export interface OperandRounding {
  /** What operands are rounded to. */
  readonly round: (value: number) => number;
  /** Of types of 16 bits: the largest result, beyond which it is infinite. */
  readonly largest?: number;
  readonly budget: BudgetName;
}

/** Errors below a few of float32's smallest steps are no errors: near zero there is nothing finer. */
const UNDERFLOW = 4 * 2 ** -149;

/** How far a result is from its expectation. */
export interface Discrepancy {
  readonly nmse: number;
  readonly maxAbs: number;
  /** Elements that are NaN or infinite where the other side is not, or of the wrong sign. */
  readonly nonFinite: number;
}

/** The plan of a case, its ops as they were captured. */
export function planCase(backend: Backend, testCase: ConformanceCase): Plan {
  const graph = new Graph(testCase.name, testCase.weights ?? new TestWeights());
  const tensors = Object.fromEntries(
    Object.entries(testCase.inputs).map(([name, tensor]) => [
      name,
      graph.input(name, tensor.shape, tensor.dtype === "int32" ? "int32" : "float32"),
    ]),
  );
  graph.output("output", testCase.build(graph, tensors));
  return buildPlan(graph, { supports: (op) => backend.supports(op), fuse: false });
}

/** Runs a plan of a case once and lets `read` look at the program. */
export async function runPlanOfCase<Result>(
  backend: Backend,
  testCase: ConformanceCase,
  plan: Plan,
  inputs: Iterable<readonly [string, HostTensor]>,
  read: (program: Program) => Result,
): Promise<Result> {
  const source = testCase.weights ?? new TestWeights();
  const weights = await backend.loadWeights(plan.weights, source);
  const program = await backend.compile(plan, weights);
  try {
    for (const [name, tensor] of inputs) program.write(name, tensor);
    await program.run();
    return read(program);
  } finally {
    program.release();
    await weights.release();
  }
}

/** The output of a case on a backend. */
export function runCase(backend: Backend, testCase: ConformanceCase): Promise<HostTensor> {
  const plan = planCase(backend, testCase);
  const inputs = Object.entries(testCase.inputs);
  return runPlanOfCase(backend, testCase, plan, inputs, (program) => program.read("output"));
}

/** Compares a result with its expectation. */
export function compare(
  found: ArrayLike<number>,
  expected: ArrayLike<number>,
  magnitude = 0,
): Discrepancy {
  let squaredError = 0, squared = magnitude ** 2, worst = 0, largest = magnitude, nonFinite = 0;
  if (found.length !== expected.length) return { nmse: Infinity, maxAbs: Infinity, nonFinite: 0 };
  for (let index = 0; index < expected.length; index++) {
    const wanted = expected[index], got = found[index];
    // A float64 expectation beyond float32 must come out as what float32 makes of it.
    if (!Number.isFinite(Math.fround(wanted)) || !Number.isFinite(got)) {
      if (!Object.is(Math.fround(wanted), got)) nonFinite++;
      continue;
    }
    const error = Math.max(0, Math.abs(got - wanted) - UNDERFLOW);
    squaredError += error * error;
    squared += wanted * wanted;
    worst = Math.max(worst, error);
    largest = Math.max(largest, Math.abs(wanted));
  }
  return {
    nmse: squaredError === 0 ? 0 : squaredError / squared,
    maxAbs: worst === 0 ? 0 : worst / largest,
    nonFinite,
  };
}

/** A sentence about a case that is over its budget, or null. */
export function judge(testCase: ConformanceCase, found: HostTensor): string | null {
  const values = found.dtype === "int32" ? found.toInt32() : found.toFloat32();
  const expected = testCase.expected();
  const { nmse, maxAbs, nonFinite } = compare(values, expected, testCase.magnitude);
  const budget = ERROR_BUDGETS[testCase.budget];
  if (testCase.op === "copy" && !Array.from(expected).every((x, i) => Object.is(x, values[i]))) {
    return `${testCase.op}: ${testCase.name}: some values are not the same, sign of zero included`;
  }
  if (nmse <= budget.nmse && maxAbs <= budget.maxAbs && nonFinite === 0) return null;
  const faults = nonFinite > 0 ? `, ${nonFinite} wrong NaN or infinite values` : "";
  return `${testCase.op}: ${testCase.name}: NMSE ${nmse.toExponential(1)} ` +
    `(at most ${budget.nmse}), largest error ${maxAbs.toExponential(1)} ` +
    `(at most ${budget.maxAbs})${faults}`;
}

/** Where an op of a case writes: a tensor of its own, or part of wider rows, as in a concatenation. */
export function writeTo(
  graph: Graph,
  shape: Shape,
  isPart: boolean,
  write: (output: Tensor) => void,
): Tensor {
  const columns = shape[shape.length - 1];
  const target = isPart
    ? graph.allocate(shape.with(-1, columns + 7)).slice(shape.length - 1, 3, columns + 3)
    : graph.allocate(shape);
  write(target);
  return isPart ? graph.add("copy", {}, [target], graph.allocate(shape)) : target;
}

/** A matrix as the middle of wider rows, for operands that are parts of something larger. */
export function widened(matrix: HostTensor): HostTensor {
  const [rows, columns] = matrix.shape;
  const values = matrix.toFloat32();
  const wide = new Float32Array(rows * (columns + 5)).fill(77);
  for (let row = 0; row < rows; row++) {
    wide.set(values.subarray(row * columns, (row + 1) * columns), row * (columns + 5) + 2);
  }
  return HostTensor.fromFloat32(wide, [rows, columns + 5]);
}

/** The matrix inside a widened one. */
export function narrowed(wide: Tensor): Tensor {
  return wide.slice(1, 2, wide.shape[1] - 3);
}

/** A float32 tensor. */
export function floats(values: ArrayLike<number>, shape: readonly number[]): HostTensor {
  return HostTensor.fromFloat32(Float32Array.from(values), shape);
}
