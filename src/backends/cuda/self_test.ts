/** Arithmetic with known results, run once when the backend starts: can this device and driver be trusted? */

import { attention, layerNorm, matmul } from "../../ops/builders.ts";
import { Graph, type Tensor } from "../../ops/graph.ts";
import type { OpName } from "../../ops/op_table.ts";
import { buildPlan } from "../../plan/build.ts";
import { HostTensor } from "../../tensor/host_tensor.ts";
import type { Backend } from "../backend.ts";
import { unavailable } from "./driver.ts";

const COLUMNS = 64;
const ROW_COUNT = 72;
/** Enough rows for a linear layer to take the way of many: 0 to 63 upwards and downwards in turn. */
const ROWS = matrix((row, column) => row % 2 === 0 ? column : COLUMNS - 1 - column);
/** Numbers whose convolution stays within what bfloat16 holds exactly. */
const SMALL = matrix((row, column) => (row + 2 * column) % 3 - 1);
/** Row i asks for the key `asked(i)`, so loudly that the others do not count. */
const QUERIES = matrix((row, column) => column === asked(row) ? COLUMNS : 0);
const KEYS = matrix((row, column) => row === column ? 1 : 0).slice(0, COLUMNS);
/** The variance of 0 to 63, and what norms and attention may be off by. */
const VARIANCE = (COLUMNS ** 2 - 1) / 12;
const TOLERANCE = 1e-5;
/** The small numbers as a picture, and as a weight of 2x2 pixels. */
const PICTURE = { height: 9, width: 32, channels: 16, kernel: 2 } as const;

/** Throws `backend_unavailable` with the op that comes out wrong. */
export async function selfTest(backend: Backend): Promise<void> {
  const plan = selfTestPlan();
  const weights = await backend.loadWeights(plan.weights, { read: () => Promise.reject() });
  const program = await backend.compile(plan, weights);
  try {
    const inputs = { x: ROWS, small: SMALL, queries: QUERIES, keys: KEYS };
    for (const [name, rows] of Object.entries(inputs)) {
      const values = Float32Array.from(rows.flat());
      program.write(name, HostTensor.fromFloat32(values, [rows.length, COLUMNS]));
    }
    await program.run();
    check("a matrix product", "matmul", program.read("matmul"), expectedProducts());
    check("a linear layer", "linear", program.read("linear"), expectedProducts());
    check("a norm", "norm", program.read("norm"), expectedNorms(), TOLERANCE);
    check("attention", "attention", program.read("attention"), expectedAttention(), TOLERANCE);
    check("a convolution", "conv2d", program.read("conv2d"), expectedConvolution());
  } finally {
    program.release();
    await weights.release();
  }
}

function selfTestPlan() {
  const graph = new Graph("self test", { lookup: () => undefined });
  const rows = graph.input("x", [ROW_COUNT, COLUMNS]);
  const small = graph.input("small", [ROW_COUNT, COLUMNS]);
  const queries = graph.input("queries", [ROW_COUNT, COLUMNS]);
  const keys = graph.input("keys", [COLUMNS, COLUMNS]);
  const layer = { activation: "identity", activations: { kind: "float" } } as const;
  const output = graph.allocate([ROW_COUNT, ROW_COUNT]);
  const batch = rows.reshape([1, ROW_COUNT, COLUMNS]);
  graph.output("matmul", matmul(batch, batch));
  graph.output("linear", graph.add("linear", layer, [rows, rows, null, null, null], output));
  graph.output("norm", layerNorm(batch, { epsilon: 0 }));
  const values = rows.slice(0, 0, COLUMNS);
  graph.output("attention", attention(queries, keys, values, { heads: 1, scale: 1 }));
  graph.output("conv2d", convolution(graph, small));
  return buildPlan(graph, { supports: () => true });
}

function convolution(graph: Graph, small: Tensor): Tensor {
  const { height, width, channels, kernel } = PICTURE;
  const attributes = {
    kernel,
    stride: 1,
    padding: [0, 0, 0, 0],
    upsample: 1,
    activation: "identity",
  } as const;
  const picture = small.reshape([height, width, channels]);
  const output = graph.allocate([height - 1, width - 1, ROW_COUNT]);
  return graph.add("conv2d", attributes, [picture, small, null, null], output);
}

function matrix(value: (row: number, column: number) => number): number[][] {
  return Array.from(
    { length: ROW_COUNT },
    (_, row) => Array.from({ length: COLUMNS }, (_, column) => value(row, column)),
  );
}

function asked(row: number): number {
  return 7 * row % COLUMNS;
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

function expectedAttention(): number[] {
  return ROWS.flatMap((_, row) => ROWS[asked(row)]!);
}

function expectedConvolution(): number[] {
  const { height, width, channels, kernel } = PICTURE;
  const picture = SMALL.flat();
  const line = width * channels, patch = kernel * channels;
  const sums: number[] = [];
  for (let y = 0; y < height - 1; y++) {
    for (let x = 0; x < width - 1; x++) {
      const first = y * line + x * channels;
      const seen = [
        ...picture.slice(first, first + patch),
        ...picture.slice(first + line, first + line + patch),
      ];
      for (const weight of SMALL) sums.push(seen.reduce((sum, v, i) => sum + v * weight[i]!, 0));
    }
  }
  return sums;
}

function check(
  what: string,
  op: OpName,
  found: HostTensor,
  expected: number[],
  tolerance = 0,
): void {
  const values = found.toFloat32();
  const wrong = expected.findIndex((value, index) =>
    !(Math.abs(values[index]! - value) <= tolerance)
  );
  if (wrong < 0) return;
  throw unavailable(`the device gets ${what} wrong`, {
    field: op,
    found: values[wrong],
    expected: expected[wrong],
    remedy: "Please report it with the device and the driver's version; use --backend wasm",
  });
}
