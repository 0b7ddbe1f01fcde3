/** Arithmetic with known results, run once when the backend starts: can this device and driver be trusted? */

import { layerNorm, matmul } from "../../ops/builders.ts";
import { Graph } from "../../ops/graph.ts";
import { buildPlan } from "../../plan/build.ts";
import { HostTensor } from "../../tensor/host_tensor.ts";
import type { Backend } from "../backend.ts";
import { unavailable } from "./driver.ts";

const COLUMNS = 64;
/** Enough rows for a linear layer to take the way of many: 0 to 63 upwards and downwards in turn. */
const ROWS = Array.from(
  { length: 72 },
  (_, row) =>
    Array.from({ length: COLUMNS }, (_, column) => row % 2 === 0 ? column : COLUMNS - 1 - column),
);
/** The variance of 0 to 63, and what a norm may be off by. */
const VARIANCE = (COLUMNS ** 2 - 1) / 12;
const TOLERANCE = 1e-5;

/** Throws `backend_unavailable` when a product, a linear layer or a norm (shared memory, shuffles) comes out wrong. */
export async function selfTest(backend: Backend): Promise<void> {
  const plan = selfTestPlan();
  const weights = await backend.loadWeights(plan.weights, { read: () => Promise.reject() });
  const program = await backend.compile(plan, weights);
  try {
    program.write(
      "x",
      HostTensor.fromFloat32(Float32Array.from(ROWS.flat()), [1, ROWS.length, COLUMNS]),
    );
    await program.run();
    check("a matrix product", program.read("products"), expectedProducts(), 0);
    check("a linear layer", program.read("layer"), expectedProducts(), 0);
    check("a norm", program.read("norms"), expectedNorms(), TOLERANCE);
  } finally {
    program.release();
    await weights.release();
  }
}

function selfTestPlan() {
  const graph = new Graph("self test", { lookup: () => undefined });
  const x = graph.input("x", [1, ROWS.length, COLUMNS]);
  const layer = { activation: "identity", activations: { kind: "float" } } as const;
  const rows = x.reshape([ROWS.length, COLUMNS]);
  const output = graph.allocate([ROWS.length, ROWS.length]);
  graph.output("products", matmul(x, x));
  graph.output("layer", graph.add("linear", layer, [rows, rows, null, null, null], output));
  graph.output("norms", layerNorm(x, { epsilon: 0 }));
  return buildPlan(graph, { supports: () => true });
}

/** Sums of integers below 2^24, which float32 holds exactly in any order, of integers that 8 bits hold. */
function expectedProducts(): number[] {
  const dot = (a: number[], b: number[]) => a.reduce((sum, value, i) => sum + value * b[i]!, 0);
  return ROWS.flatMap((a) => ROWS.map((b) => dot(a, b)));
}

function expectedNorms(): number[] {
  const mean = (COLUMNS - 1) / 2;
  return ROWS.flat().map((value) => (value - mean) / Math.sqrt(VARIANCE));
}

function check(what: string, found: HostTensor, expected: number[], tolerance: number): void {
  const values = found.toFloat32();
  const wrong = expected.findIndex((value, index) =>
    !(Math.abs(values[index]! - value) <= tolerance)
  );
  if (wrong < 0) return;
  throw unavailable(`the device gets ${what} wrong`, {
    found: values[wrong],
    expected: expected[wrong],
    remedy: "Please report it with the device and the driver's version; use --backend wasm",
  });
}
