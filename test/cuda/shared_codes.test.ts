/** Codes of activations that layers share, and that norms and layers write themselves: the bytes of rounding apart. */

import assert from "node:assert/strict";
import { test } from "node:test";
import type { HalftoneError } from "../../src/errors.ts";
import type { MatmulPrecision } from "../../src/backends/cuda/matmul_precision.ts";
import type { ActivationMode } from "../../src/ops/activation_mode.ts";
import {
  add,
  affine,
  copy,
  geluTanh,
  layerNorm,
  linear,
  modulate,
  relu,
  rmsNorm,
} from "../../src/ops/builders.ts";
import { Graph, type Tensor } from "../../src/ops/graph.ts";
import { HostTensor } from "../../src/tensor/host_tensor.ts";
import { Random } from "../backends/conformance/random.ts";
import { denseWeight, TestWeights } from "../backends/conformance/weights.ts";
import { BY_ROW, ROW, STATIC, TENSOR } from "./float8_cases.ts";
import { INT8_FORMATS, int8Modes } from "./int8_cases.ts";
import { launched } from "./launched.ts";
import { openStandIn, type StandIn } from "./stand_in.ts";

/** Rows, enough of them for products of codes, and columns. */
const [M, K] = [66, 64];
const INT8 = INT8_FORMATS[0]!;
/** Layers by name: rows of their weights, and whether something is added to them. */
const LAYERS = { q: 32, k: 32, v: 48, up: 96, down: 64 } as const;

const standIn = openStandIn("shared_codes");
if (typeof standIn === "string") {
  console.log(`cuda: shared codes are skipped: ${standIn}`);
  test("cuda on the stand-in: shared codes", { skip: standIn }, () => {});
} else {
  registerAll(standIn);
}

/** A graph over layers of one mode; `own` keeps what a layer reads from being rounded by anybody else. */
type Build = (layers: Layers, own: (x: Tensor) => Tensor) => Record<string, Tensor>;

/** What graphs are made of. */
class Layers {
  readonly graph: Graph;
  readonly x: Tensor;

  constructor(weights: TestWeights) {
    this.graph = new Graph("layers", weights);
    this.x = this.graph.input("x", [M, K]);
  }

  layer(name: keyof typeof LAYERS, x: Tensor): Tensor {
    const weight = this.graph.weight(name, [LAYERS[name], x.shape[1]!]);
    return linear(x, weight, this.graph.weight(`${name}.bias`, [LAYERS[name]]));
  }
}

/** A modulated norm, three layers that read it, and two with a GELU between. */
const block: Build = (layers, own) => {
  const row = (from: number) => layers.x.slice(0, from, from + 1);
  const normalized = modulate(layerNorm(layers.x, { epsilon: 1e-6 }), row(0), row(1));
  const [q, k, v, up] = (["q", "k", "v", "up"] as const).map((name) =>
    layers.layer(name, own(normalized))
  );
  const down = layers.layer("down", own(geluTanh(up!)));
  return { q: q!, k: k!, v: v!, down };
};

function registerAll(standIn: StandIn): void {
  /** Outputs of a graph and the kernels of ours that made them. */
  async function run(
    mode: ActivationMode,
    build: Build,
    options: {
      apart?: boolean;
      precision?: MatmulPrecision;
      streamed?: boolean;
      x?: HostTensor;
      cublasLtLibrary?: string | false;
      beforeLoading?: () => void;
    } = {},
  ) {
    const { apart = false, precision = "bfloat16", x = someRows() } = options;
    const weights = weightsFor(mode);
    const layers = new Layers(weights);
    const outputs = build(layers, (x) => apart ? affine(x, 1, -0) : x);
    for (const [name, tensor] of Object.entries(outputs)) layers.graph.output(name, tensor);
    return await launched(layers.graph, weights, { x }, {
      ...standIn.libraries,
      ...(options.cublasLtLibrary === false ? { cublasLtLibrary: false } : {}),
      ...(options.streamed ? { residentWeightBytes: 1 } : {}),
      matmulPrecision: precision,
    }, options.beforeLoading);
  }

  const [reciprocal, asymmetric, tensor, , fixed, zeroed] = int8Modes();
  const llm: ActivationMode = { kind: "llm_int8", threshold: 2.5 };
  /** Kernels that round: in the norm, in the layer before, in those of their own. */
  const modes: readonly [
    name: string,
    ActivationMode,
    inNorm: number,
    inLayer: number,
    own: number,
  ][] = [
    ["int8 by row", reciprocal!, 1, 1, 0],
    ["int8 by row, asymmetric", asymmetric!, 1, 1, 0],
    ["int8 with a known scale", fixed!, 1, 1, 0],
    ["int8 with a known scale and zero", zeroed!, 1, 1, 0],
    ["int8 with a scale of all rows", tensor!, 0, 0, 2],
    ["LLM.int8()", llm, 0, 0, 2],
    ["float8 by row", ROW, 1, 1, 0],
    ["float8 with a known scale", STATIC, 1, 1, 0],
    ["float8 with a scale of all rows", TENSOR, 0, 0, 2],
  ];
  for (const [name, mode, inNorm, inLayer, own] of modes) {
    test(`${name}: shared codes give the bytes of rounding apart`, async () => {
      const shared = await run(mode, block);
      const apart = await run(mode, block, { apart: true });
      assert.deepEqual(shared.values, apart.values);
      const count = ({ names }: typeof shared) =>
        [/^row_norm_codes$/, /^end_\w+_codes$/, /^round_rows$/].map((kernel) =>
          names.filter((name) => kernel.test(name)).length
        );
      assert.deepEqual(count(shared), [inNorm, inLayer, own]);
      assert.deepEqual(count(apart), [0, 0, 5]);
    });
  }

  test("int8 weights are unpacked where they stream, and read as they lie where they stay", async () => {
    for (const mode of [reciprocal!, asymmetric!]) {
      const resident = await run(mode, block);
      const streamed = await run(mode, block, { streamed: true });
      const own = await run(mode, block, { cublasLtLibrary: false });
      assert.deepEqual(streamed.values, resident.values);
      assert.deepEqual(own.values, resident.values);
      const unpacks = [resident, streamed, own].map(({ launches }) =>
        launches.filter(({ kernel, parameters }) =>
          kernel === "unpack_int8" && new DataView(parameters.buffer).getBigUint64(0, true) !== 0n
        ).length
      );
      assert.deepEqual(unpacks, [0, 5, 0]);
      // Sums of codes are still asked for where zeros are to be taken off.
      assert.equal(resident.names.includes("unpack_int8"), mode === asymmetric);
    }
  });

  test("any allocation or launch may fail: a clear error, and nothing stays", async () => {
    for (
      const [setting, code] of [["failAllocation", "out_of_memory"], [
        "failLaunch",
        "backend_failed",
      ]] as const
    ) {
      let failed = 0;
      for (let k = 1;; k += setting === "failLaunch" ? 4 : 1) {
        const failure = await run(reciprocal!, block, {
          beforeLoading: () => standIn.set({ [setting]: k }),
        })
          .then(() => null, (error) => error);
        standIn.reset();
        standIn.assertNothingHeld();
        if (failure === null) break;
        assert.equal((failure as HalftoneError).code, code, String(failure));
        failed++;
      }
      assert.ok(failed >= 3, `${failed} of ${setting}`); // weights, arena, scratch; and every fourth launch
    }
  });

  test("floats that nobody reads are not written, and those that somebody does are", async () => {
    const read: Build = (layers, own) => {
      const normalized = own(rmsNorm(layers.x, { epsilon: 1e-6 }));
      const up = own(geluTanh(layers.layer("up", normalized)));
      return {
        down: layers.layer("down", up),
        sum: add(up, up),
        twice: add(normalized, normalized),
      };
    };
    const writes = ({ launches }: Awaited<ReturnType<typeof run>>) =>
      ([["row_norm_codes", 16], ["end_int8_codes", 32]] as const).map(([kernel, at]) => {
        const { parameters } = launches.find((launch) => launch.kernel === kernel)!;
        return new DataView(parameters.buffer).getBigUint64(at, true) !== 0n;
      });
    assert.deepEqual(writes(await run(reciprocal!, block)), [false, false]);
    const kept = await run(reciprocal!, read);
    assert.deepEqual(writes(kept), [true, true]);
    assert.deepEqual(kept.values, (await run(reciprocal!, read, { apart: true })).values);
  });

  test("what another op writes over x in between is rounded again", async () => {
    const rewritten: Build = (layers, own) => {
      const before = affine(layers.x, 2, 0);
      const q = layers.layer("q", own(before));
      const k = layers.layer("k", own(before));
      const after = relu(before); // over what it reads, which nobody needs any more
      return { q, k, down: layers.layer("v", own(after)) };
    };
    const shared = await run(reciprocal!, rewritten);
    assert.equal(shared.names.filter((name) => name === "round_rows").length, 2);
    const apart = await run(reciprocal!, rewritten, { apart: true });
    assert.deepEqual(shared.values, apart.values);
  });

  test("a part of a concatenation is written as codes and as floats where both are read", async () => {
    const joined: Build = (layers, own) => {
      const whole = layers.graph.allocate([2 * M, K]);
      const top = whole.slice(0, 0, M), bottom = whole.slice(0, M, 2 * M);
      layers.graph.add("copy", {}, [rmsNorm(layers.x, { epsilon: 1e-6 })], top);
      const q = layers.layer("q", own(top));
      layers.graph.add("copy", {}, [affine(layers.x, 0.5, 0)], bottom);
      return { q, whole: copy(whole), k: layers.layer("k", own(bottom)) };
    };
    const shared = await run(reciprocal!, joined);
    assert.ok(shared.names.includes("row_norm_codes"));
    assert.deepEqual(shared.values, (await run(reciprocal!, joined, { apart: true })).values);
  });

  test("a NaN makes its row NaN, and no other, through layers that write codes", async () => {
    for (const mode of [reciprocal!, ROW]) {
      const x = someRows();
      const broken = Float32Array.from(x.toFloat32());
      broken[33 * K + 5] = NaN;
      const clean = await run(mode, block, { x });
      const found = await run(mode, block, { x: HostTensor.fromFloat32(broken, [M, K]) });
      found.values.forEach((values, output) =>
        values.forEach((value, i) => {
          const isBroken = Math.floor(i / (values.length / M)) === 33;
          assert.ok(isBroken ? Number.isNaN(value) : value === clean.values[output]![i]);
        })
      );
    }
  });
}

/** Rows with outliers here and there. */
function someRows(): HostTensor {
  const random = new Random(9100);
  const values = Float32Array.from({ length: M * K }, () => random.normal());
  for (let i = 3; i < values.length; i += 211) values[i] = 9 - i % 19;
  return HostTensor.fromFloat32(values, [M, K]);
}

function weightsFor(mode: ActivationMode): TestWeights {
  const format = mode.kind === "quantized" && mode.dtype !== "int8" ? BY_ROW : INT8;
  const random = new Random(9200);
  const weights = new TestWeights(mode);
  for (const [name, rows] of Object.entries(LAYERS)) {
    weights.add(name, format.make(random, rows, name === "down" ? LAYERS.up : K));
    weights.add(`${name}.bias`, denseWeight(random, "float32", [rows]));
  }
  return weights;
}
