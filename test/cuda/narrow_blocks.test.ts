/** Heads that are written in 16 bits where attention by cuDNN follows: the bytes of narrowing apart. */

import assert from "node:assert/strict";
import { test } from "node:test";
import type { MatmulPrecision } from "../../src/backends/cuda/matmul_precision.ts";
import { add, affine, attention, headNormRope } from "../../src/ops/builders.ts";
import { Graph, type Tensor } from "../../src/ops/graph.ts";
import { HostTensor } from "../../src/tensor/host_tensor.ts";
import { Random } from "../backends/conformance/random.ts";
import { denseWeight, TestWeights } from "../backends/conformance/weights.ts";
import { launched } from "./launched.ts";
import { openStandIn, type StandIn } from "./stand_in.ts";

/** Rows of text and of a picture, heads and their size. */
const [TEXT, PICTURE, HEADS, SIZE] = [5, 18, 3, 16];
const ROWS = TEXT + PICTURE, COLUMNS = HEADS * SIZE;

const standIn = openStandIn("narrow_heads");
if (typeof standIn === "string") {
  console.log(`cuda: heads of 16 bits are skipped: ${standIn}`);
  test("cuda on the stand-in: heads of 16 bits", { skip: standIn }, () => {});
} else {
  registerAll(standIn);
}

/** What a case does with q before attention reads it. */
interface Case {
  readonly precision: MatmulPrecision;
  readonly apart?: boolean;
  readonly isReadElsewhere?: boolean;
  readonly causal?: boolean;
}

function registerAll(standIn: StandIn): void {
  /** Attention over q of two parts and k of one, both normed and rotated; k lies over what it is made of. */
  function run({ precision, apart = false, isReadElsewhere = false, causal = false }: Case) {
    const weights = new TestWeights();
    weights.add("w", denseWeight(new Random(9300), "float32", [SIZE]));
    const graph = new Graph("heads", weights);
    const [x, cos, sin] = ["x", "cos", "sin"].map((name) =>
      graph.input(name, [ROWS, name === "x" ? COLUMNS : SIZE])
    ) as [Tensor, Tensor, Tensor];
    const heads = (part: Tensor, first: number) =>
      headNormRope(part, {
        heads: HEADS,
        weight: graph.weight("w", [SIZE]),
        epsilon: 1e-6,
        cos: cos.slice(0, first, first + part.shape[0]!),
        sin: sin.slice(0, first, first + part.shape[0]!),
      });
    const whole = graph.allocate([ROWS, COLUMNS]);
    for (const [from, to] of [[0, TEXT], [TEXT, ROWS]] as const) {
      graph.add("copy", {}, [heads(x.slice(0, from, to), from)], whole.slice(0, from, to));
    }
    const own = (q: Tensor) => apart ? affine(q, 1, -0) : q;
    const [q, k, v] = [own(whole), own(heads(affine(x, 0.5, 0.25), 0)), affine(x, 0.25, 0)];
    graph.output("y", attention(q, k, v, { heads: HEADS, scale: 0.25, causal }));
    if (isReadElsewhere) graph.output("sum", add(q, k));
    const options = { ...standIn.libraries, matmulPrecision: precision };
    return launched(graph, weights, inputs(), options);
  }
  const count = ({ names }: Awaited<ReturnType<typeof run>>, name: RegExp) =>
    names.filter((kernel) => name.test(kernel)).length;

  for (const precision of ["float16", "bfloat16"] as const) {
    test(`heads in ${precision} give the bytes of narrowing apart, and only values are narrowed`, async () => {
      const together = await run({ precision });
      const apart = await run({ precision, apart: true });
      assert.deepEqual(together.values, apart.values);
      const kernels = [new RegExp(`^head_norm_rope_${precision}$`), /^head_norm_rope$/, /^narrow_/];
      assert.deepEqual(kernels.map((kernel) => count(together, kernel)), [3, 0, 1]);
      assert.deepEqual(kernels.map((kernel) => count(apart, kernel)), [0, 3, 3]);
    });
  }

  const wide: readonly [name: string, Case, refuseOperations: number, narrowed: number][] = [
    ["somebody else reads them", { precision: "bfloat16", isReadElsewhere: true }, 0, 3],
    ["cuDNN refuses the attention", { precision: "bfloat16" }, 1, 0],
    ["a mask makes attention ours", { precision: "bfloat16", causal: true }, 0, 0],
    ["the precision is float32", { precision: "float32" }, 0, 0],
  ];
  for (const [name, asked, refuseOperations, narrowed] of wide) {
    test(`heads stay float32 where ${name}`, async () => {
      standIn.set({ refuseOperations });
      const found = await run(asked);
      const apart = await run({ ...asked, apart: true });
      standIn.reset();
      assert.deepEqual(found.values, apart.values);
      assert.equal(count(found, /^head_norm_rope$/), 3);
      assert.equal(count(found, /^narrow_/), narrowed);
    });
  }
}

function inputs(): Record<string, HostTensor> {
  const random = new Random(9400);
  const rows = (columns: number) =>
    HostTensor.fromFloat32(
      Float32Array.from({ length: ROWS * columns }, () => random.normal()),
      [ROWS, columns],
    );
  return { x: rows(COLUMNS), cos: rows(SIZE), sin: rows(SIZE) };
}
