/** What stays in 16 bits from the kernel or library that makes it to the one that reads it: the bytes of rounding apart. */

import assert from "node:assert/strict";
import { test } from "node:test";
import type { KernelLaunch } from "../../src/backends/cuda/cuda_step.ts";
import type { CudaBackendOptions } from "../../src/backends/cuda/mod.ts";
import type { ActivationMode } from "../../src/ops/activation_mode.ts";
import {
  add,
  affine,
  attention,
  concat,
  geluTanh,
  layerNorm,
  linear,
  multiply,
} from "../../src/ops/builders.ts";
import { Graph, type Tensor } from "../../src/ops/graph.ts";
import { HostTensor } from "../../src/tensor/host_tensor.ts";
import { Random } from "../backends/conformance/random.ts";
import { denseWeight, type TestWeights } from "../backends/conformance/weights.ts";
import { MixedWeights } from "./code_graphs.ts";
import { BY_ROW, ROW } from "./float8_cases.ts";
import { INT8_FORMATS, int8Modes } from "./int8_cases.ts";
import { launched } from "./launched.ts";
import { openStandIn, type StandIn } from "./stand_in.ts";

/** Rows of text and of a picture, all of them enough for products of 16 bits; heads and their size. */
const [TEXT, PICTURE, HEADS, SIZE] = [66, 70, 2, 16];
const FLOAT = { kind: "float" } as const;
const ROWS = TEXT + PICTURE, COLUMNS = HEADS * SIZE, WIDE = 3 * COLUMNS;

const standIn = openStandIn("narrow_flow");
if (typeof standIn === "string") {
  console.log(`cuda: matrices of 16 bits are skipped: ${standIn}`);
  test("cuda on the stand-in: matrices of 16 bits", { skip: standIn }, () => {});
} else {
  registerAll(standIn);
}

interface Case {
  readonly type?: "float16" | "bfloat16";
  /** Whether an op of our own stands between all who write and read. */
  readonly apart?: boolean;
  /** The type that holds the biases. */
  readonly biases?: "float32" | "float16" | "bfloat16";
  /** What the layers before attention and GELU round their activations to. */
  readonly mode?: ActivationMode;
  /** Whether somebody reads what attention and GELU make as float32, too. */
  readonly isReadElsewhere?: boolean;
  readonly options?: CudaBackendOptions;
}

function registerAll({ libraries, set, reset }: StandIn): void {
  /**
   * A block of a single stream whose values come from two parts: a norm, projections, attention beside an MLP, what
   * joins both, and a gated layer over it.
   */
  async function run(asked: Case) {
    const { type = "bfloat16", apart = false, mode, options, isReadElsewhere = false } = asked;
    const weights = weightsOf(asked.biases ?? type, mode);
    const graph = new Graph("flow", weights);
    const x = graph.input("x", [ROWS, COLUMNS]);
    const own = (tensor: Tensor) => apart ? affine(tensor, 1, -0) : tensor;
    const normalized = layerNorm(x, { epsilon: 1e-6 });
    const layer = (name: string, from: Tensor) => {
      const shape = [name === "up" ? WIDE : COLUMNS, from.shape[1]!] as const;
      return linear(from, graph.weight(name, shape), graph.weight(`${name}.bias`, [shape[0]]));
    };
    const part = (name: string, first: number, end: number) =>
      layer(name, own(normalized.slice(0, first, end)));
    const v = concat([part("text", 0, TEXT), part("picture", TEXT, ROWS)], 0);
    const [q, k] = [layer("q", own(normalized)), layer("k", own(normalized))];
    const mixed = attention(own(q), own(k), own(v), { heads: HEADS, scale: 0.25 });
    const hidden = geluTanh(layer("up", own(normalized)));
    const joined = own(concat([own(mixed), own(hidden)], 1));
    const gate = x.slice(0, 0, 1);
    graph.output("y", add(x, multiply(gate, layer("down", joined))));
    if (isReadElsewhere) graph.output("wide", affine(joined, 2, 0));
    const backend = { ...libraries, matmulPrecision: type, ...options } as const;
    const { values, names, launches } = await launched(graph, weights, { x: someRows() }, backend);
    const narrowed = launches.filter(({ kernel }) => kernel === `narrow_${type}`);
    const isVector = ({ parameters }: KernelLaunch) =>
      new DataView(parameters.buffer).getInt32(24, true) === 1;
    return {
      values,
      kernels: {
        narrowed: narrowed.filter((launch) => !isVector(launch)).length,
        biases: narrowed.filter(isVector).length,
        widened: names.filter((name) => name === `end_product_${type}`).length,
        ended: names.filter((name) => name === "end_product_float32").length,
      },
    };
  }

  /** Asserts that a case gives the same bytes together and apart. */
  async function assertSame(asked: Case, kernels: Awaited<ReturnType<typeof run>>["kernels"]) {
    const [together, apart] = [await run(asked), await run({ ...asked, apart: true })];
    assert.deepEqual(together.values, apart.values);
    assert.deepEqual(together.kernels, kernels);
    assert.ok(apart.kernels.narrowed > kernels.narrowed);
    return together;
  }

  for (const type of ["float16", "bfloat16"] as const) {
    test(`in ${type} nothing is rounded or widened apart but biases`, async () => {
      // The text's and the picture's values, q, k, and the MLP's first layer; the last layer has a gate.
      await assertSame({ type }, { narrowed: 0, biases: 5, widened: 0, ended: 1 });
    });
  }

  test("a bias that 16 bits do not hold is added as float32, and only then results are rounded", async () => {
    const biases = "float32";
    await assertSame({ biases }, { narrowed: 0, biases: 0, widened: 0, ended: 6 });
    const [exact, rounded] = [await run({ biases }), await run({})];
    assert.notDeepEqual(exact.values, rounded.values);
  });

  test("layers over int8 write 16 bits for attention and for a layer of floats", async () => {
    const [mode] = int8Modes();
    await assertSame({ mode: mode! }, { narrowed: 0, biases: 0, widened: 0, ended: 1 });
  });

  test("layers over float8 have their values written in 16 bits by cuBLASLt", async () => {
    set({ libraryVersion: 120900, capability: 90 });
    // Biases of all projections; those of the others follow in our kernels.
    await assertSame({ mode: ROW }, { narrowed: 0, biases: 4, widened: 0, ended: 1 });
    reset();
  });

  test("what somebody else reads as float32 stays so", async () => {
    await assertSame(
      { isReadElsewhere: true },
      { narrowed: 1, biases: 4, widened: 1, ended: 1 },
    );
  });

  test("without cuBLASLt our products write 16 bits", async () => {
    const options = { cublasLtLibrary: false } as const;
    await assertSame({ options }, { narrowed: 0, biases: 0, widened: 0, ended: 0 });
  });

  test("where cuBLASLt refuses products our own write 16 bits", async () => {
    for (const refuseProducts of [1, 2]) {
      set({ refuseProducts });
      const found = await run({});
      const apart = await run({ apart: true });
      reset();
      assert.deepEqual(found.values, apart.values);
    }
  });

  test("where cuDNN refuses attention its operands stay float32, and its result is rounded", async () => {
    set({ refuseOperations: 1 });
    const found = await run({});
    const apart = await run({ apart: true });
    reset();
    assert.deepEqual(found.values, apart.values);
    // Attention's result, and the sums of the gated layer.
    assert.deepEqual(found.kernels, { narrowed: 0, biases: 1, widened: 0, ended: 2 });
  });

  test("weights that stream in have their biases rounded in every run", async () => {
    const options = { residentWeightBytes: 1 };
    const resident = await run({});
    const streamed = await assertSame({ options }, {
      narrowed: 0,
      biases: 5,
      widened: 0,
      ended: 1,
    });
    assert.deepEqual(streamed.values, resident.values);
  });
}

function weightsOf(biases: "float32" | "float16" | "bfloat16", mode?: ActivationMode): TestWeights {
  const random = new Random(9500);
  const weights = new MixedWeights(mode ?? FLOAT, { down: FLOAT });
  for (const name of ["q", "k", "text", "picture", "up", "down"]) {
    const isLast = name === "down", isCoded = mode !== undefined && !isLast;
    const [rows, columns] = [name === "up" ? WIDE : COLUMNS, isLast ? COLUMNS + WIDE : COLUMNS];
    const shape = [rows, columns] as const;
    weights.add(
      name,
      isCoded
        ? (mode === ROW ? BY_ROW : INT8_FORMATS[0]!).make(random, ...shape)
        : denseWeight(random, "bfloat16", shape, { scale: 0.2 }),
    );
    weights.add(`${name}.bias`, denseWeight(random, biases, [rows]));
  }
  return weights;
}

function someRows(): HostTensor {
  const random = new Random(9600);
  const values = Float32Array.from({ length: ROWS * COLUMNS }, () => random.normal());
  for (let i = 3; i < values.length; i += 211) values[i] = 9 - i % 19;
  return HostTensor.fromFloat32(values, [ROWS, COLUMNS]);
}
