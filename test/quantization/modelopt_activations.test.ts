/** ModelOpt's rounded activations; test/goldens/make_modelopt_activation_goldens.py made the goldens. */

import assert from "node:assert/strict";
import { test } from "node:test";
import type { QuantizedActivations } from "../../src/ops/activation_mode.ts";
import { createBackend } from "../../src/backends/select.ts";
import { linear } from "../../src/ops/builders.ts";
import { Graph } from "../../src/ops/graph.ts";
import { buildPlan } from "../../src/plan/build.ts";
import { modelOptMode } from "../../src/quantization/modelopt_activations.ts";
import { NVIDIAModelOptConfig } from "../../src/quantization/modelopt_config.ts";
import { HostTensor } from "../../src/tensor/host_tensor.ts";
import { backendsHere } from "../backends/backends_here.ts";
import { roundedActivations } from "../backends/conformance/rounded_activations.ts";
import { assertRoundTrip, quantizerInputs, quantizerOf, readerOf } from "./method_support.ts";
import { assertFails, noPause, readGolden } from "./support.ts";

interface Goldens {
  readonly calibration: readonly string[];
  readonly x: string;
  readonly fp8_ranges: string;
  readonly fp8_largest: string;
  readonly layers: Record<string, {
    readonly keys: readonly string[];
    readonly amax: number | null;
    readonly amax_shape: readonly number[] | null;
    readonly rounded: string;
    readonly y: string;
  }>;
}

const goldens = await readGolden<Goldens>("modelopt_activations.json");
const dense = (await quantizerInputs()).get("weights.float32")!;
const [ROWS, COLUMNS] = [6, 128];
const X = floats(goldens.x);
/** The largest difference over the largest value: a rounding of each value, and sums in another order. */
const TOLERANCE = 1e-6;

function floats(text: string): Float32Array {
  const bytes = Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
  return new Float32Array(bytes.buffer);
}

function absmax(values: Iterable<number>): number {
  let most = 0;
  for (const value of values) most = Math.max(most, Math.abs(value));
  return most;
}

/** "max" calibration of the golden's own batches. */
const AMAX = absmax(goldens.calibration.flatMap((batch) => [...floats(batch)]));

function method(name: string) {
  const [quantType, dynamic] = name.split(" ");
  return quantizerOf(
    new NVIDIAModelOptConfig({
      quantType,
      weightOnly: false,
      channelQuantize: quantType.startsWith("INT8") ? 0 : null,
      inputAmax: dynamic ? {} : { m: AMAX },
    }),
  );
}

function assertNear(found: ArrayLike<number>, expected: Float32Array, where: string): void {
  const largest = absmax(expected);
  expected.forEach((value, index) => {
    const error = Math.abs(found[index] - value) / largest;
    assert.ok(error <= TOLERANCE, `${where} ${index}: ${error}`);
  });
}

test("the scale of a calibrated FP8 range is rounded as ModelOpt rounds it", () => {
  const largest = floats(goldens.fp8_largest);
  floats(goldens.fp8_ranges).forEach((amax, index) => {
    const { scale } = modelOptMode("FP8", amax);
    assert.ok(scale.kind === "static");
    assert.equal(Math.fround(448 * scale.scale), largest[index], `${amax}`);
  });
});

test("a calibrated layer has ModelOpt's keys, range and codes", async () => {
  for (const [name, golden] of Object.entries(goldens.layers)) {
    const quantizer = method(name);
    const weight = await quantizer.quantize("m.weight", dense, noPause);
    const written = quantizer.write("m.weight", weight);
    assert.deepEqual(written.map((t) => t.name.replace("m.", "")), golden.keys, name);
    const amax = written.find((t) => t.name === "m.input_quantizer._amax")?.tensor;
    assert.equal(amax?.toFloat32()[0] ?? null, golden.amax);
    assert.deepEqual(amax ? [...amax.shape] : null, golden.amax_shape);
    await assertRoundTrip(quantizer, "m.weight", dense, weight);
    const mode = quantizer.describe(dense.shape, "float32", "m.weight")!.activations;
    const stored = await quantizer.describeStored(
      "m.weight",
      readerOf(quantizer, "m.weight", dense, written),
    );
    assert.deepEqual(stored.activations, mode);
    const x = { rows: ROWS, columns: COLUMNS, data: X };
    const { data } = roundedActivations(x, mode as QuantizedActivations);
    assertNear(data, floats(golden.rounded), name);
  }
});

for (const options of backendsHere("modelopt_activations")) {
  test(`linear layers on ${options.backend} give what ModelOpt's give`, async () => {
    const backend = await createBackend({ ...options, threads: 2, strict: true });
    try {
      for (const [name, golden] of Object.entries(goldens.layers)) {
        const quantizer = method(name);
        const { tensor } = await quantizer.quantize("m.weight", dense, noPause);
        const info = quantizer.describe(dense.shape, "float32", "m.weight")!;
        const graph = new Graph("test", { lookup: () => info });
        const weight = graph.weight("m.weight", dense.shape);
        graph.output("y", linear(graph.input("x", [ROWS, COLUMNS]), weight));
        const plan = buildPlan(graph, { supports: (op) => backend.supports(op) });
        const source = { read: () => Promise.resolve({ kind: "quantized", tensor } as const) };
        const program = await backend.compile(
          plan,
          await backend.loadWeights(plan.weights, source),
        );
        program.write("x", HostTensor.fromFloat32(X, [ROWS, COLUMNS]));
        await program.run();
        assertNear(program.read("y").toFloat32(), floats(golden.y), name);
        program.release();
      }
    } finally {
      await backend.close();
    }
  });
}

test("an unset type of activations is INT8, and the dictionary says so", () => {
  const config = new NVIDIAModelOptConfig({ quantType: "FP8", weightOnly: false });
  assert.equal(config.activationType, "INT8");
  assert.deepEqual(NVIDIAModelOptConfig.fromDict(config.toDict()), config);
});

test("a stored range that is no number is named", async () => {
  const quantizer = method("FP8_FP8");
  const weight = await quantizer.quantize("m.weight", dense, noPause);
  const reader = readerOf(quantizer, "m.weight", dense, quantizer.write("m.weight", weight));
  for (const values of [[NaN], [-1], [1, 2]]) {
    const amax = HostTensor.fromFloat32(Float32Array.from(values), [values.length]);
    const entries = new Map(reader.entries).set("m.input_quantizer._amax", amax);
    const read = () => Promise.resolve(amax);
    const describe = () => quantizer.describeStored("m.weight", { ...reader, entries, read });
    await assertFails(describe, "unsupported", /input_quantizer/);
  }
});
