/**
 * Every cell of the table in docs/formats.md: each format quantizes a small component while it loads,
 * runs on each backend, is saved, read back and made dense again.
 */

import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { type BackendOptions, createBackend } from "../../src/backends/select.ts";
import { openCheckpoint, readConfig } from "../../src/io/checkpoint.ts";
import { dequantizeCheckpoint, quantizeCheckpoint } from "../../src/io/quantize_checkpoint.ts";
import { writeCheckpoint } from "../../src/io/write_checkpoint.ts";
import { type ActivationMode, activationsText } from "../../src/ops/activation_mode.ts";
import { linear } from "../../src/ops/builders.ts";
import { Graph } from "../../src/ops/graph.ts";
import { buildPlan } from "../../src/plan/build.ts";
import { createQuantizer } from "../../src/quantization/auto.ts";
import { dequantize } from "../../src/quantization/dequantize.ts";
import { type FormatRow, formatTable, TYPICAL_LAYER } from "../../src/quantization/format_table.ts";
import { quantizeFormats } from "../../src/quantization/formats.ts";
import { weightBytes } from "../../src/quantization/layout_bytes.ts";
import type { NamedTensor } from "../../src/quantization/quantizer.ts";
import type { QuantizedTensor } from "../../src/quantization/quantized_tensor.ts";
import {
  type ComponentWeights,
  openWeights,
  resolveQuantizer,
} from "../../src/quantization/weights.ts";
import { HostTensor } from "../../src/tensor/host_tensor.ts";
import { backendsHere } from "../backends/backends_here.ts";
import { roundedActivations } from "../backends/conformance/rounded_activations.ts";
import { type BudgetName, ERROR_BUDGETS } from "../backends/error_budgets.ts";
import { assertSameTensors, randomValues, tensorOf } from "./support.ts";

const CONFIG = { _class_name: "FluxTransformer2DModel" };
/** Two linear layers as a transformer's block has them; 256 columns, which every block size divides. */
const FIRST = "transformer_blocks.0.attn.to_q.weight";
const SECOND = "transformer_blocks.0.ff.net.2.weight";
const [ROWS, MIDDLE, COLUMNS, OUT] = [5, 512, 256, 64];
const DENSE: NamedTensor[] = [
  { name: FIRST, tensor: tensorOf(randomValues(MIDDLE * COLUMNS, 1), [MIDDLE, COLUMNS]) },
  { name: SECOND, tensor: tensorOf(randomValues(OUT * MIDDLE, 2, 0.1), [OUT, MIDDLE]) },
  { name: FIRST.replace("weight", "bias"), tensor: tensorOf(randomValues(MIDDLE, 3), [MIDDLE]) },
].map(({ name, tensor }) => ({ name, tensor: tensor.cast("bfloat16") }));
const linearNames = (name: string): boolean => name === FIRST || name === SECOND;

const backends = backendsHere("formats_table");

const formats = new Map(quantizeFormats().map((format) => [format.fullName, format]));

async function inFolder(action: (folder: string) => Promise<void>): Promise<void> {
  const folder = await mkdtemp(join(tmpdir(), "halftone-formats-"));
  try {
    await writeCheckpoint(`${folder}/dense`, CONFIG, DENSE);
    await action(folder);
  } finally {
    await rm(folder, { recursive: true });
  }
}

/** Opens the weights of a folder for an action, quantizing while loading when `format` is given. */
async function withWeights<Result>(
  folder: string,
  format: string | null,
  action: (weights: ComponentWeights) => Promise<Result>,
): Promise<Result> {
  const checkpoint = await openCheckpoint(folder);
  const quantizationConfig = format === null ? null : formats.get(format)!.config();
  const config = await readConfig(folder);
  try {
    return await action(await openWeights(checkpoint, { config, linearNames, quantizationConfig }));
  } finally {
    await checkpoint.close();
  }
}

async function quantized(weights: ComponentWeights, name: string): Promise<QuantizedTensor> {
  const info = weights.catalog.lookup(name);
  assert.ok(info?.format.kind === "quantized", `${name} is not quantized`);
  const { shape, format } = info;
  const bytes = weightBytes(shape, format);
  const stored = await weights.source.read({ name, shape, format, arrangement: "rows", bytes });
  assert.ok(stored.kind === "quantized");
  assert.deepEqual(stored.tensor.layout, format.layout, "the catalog and the weight disagree");
  return stored.tensor;
}

function readBoth(weights: ComponentWeights): Promise<QuantizedTensor[]> {
  return Promise.all([FIRST, SECOND].map((name) => quantized(weights, name)));
}

/** x weight^T in float64, from the dequantized weight, and x as the mode rounds it. */
function product(
  exact: Float32Array,
  tensor: QuantizedTensor,
  mode: ActivationMode,
): Float64Array {
  const [rows, columns] = tensor.shape;
  const weight = dequantize(tensor);
  const matrix = { rows: exact.length / columns, columns, data: exact };
  const x = mode.kind === "quantized" ? roundedActivations(matrix, mode).data : exact;
  return Float64Array.from({ length: x.length / columns * rows }, (_, index) => {
    const [row, out] = [Math.floor(index / rows), index % rows];
    let sum = 0;
    for (let k = 0; k < columns; k++) sum += x[row * columns + k] * weight[out * columns + k];
    return sum;
  });
}

async function runLinear(
  options: BackendOptions,
  weights: ComponentWeights,
  x: HostTensor,
): Promise<Float32Array> {
  const backend = await createBackend({ ...options, threads: 1, strict: true });
  try {
    const graph = new Graph("test", weights.catalog);
    const [out, columns] = weights.catalog.lookup(SECOND)!.shape;
    graph.output("y", linear(graph.input("x", x.shape), graph.weight(SECOND, [out, columns])));
    const plan = buildPlan(graph, { supports: (op) => backend.supports(op) });
    const set = await backend.loadWeights(plan.weights, weights.source);
    const program = await backend.compile(plan, set);
    program.write("x", x);
    await program.run();
    return program.read("y").toFloat32();
  } finally {
    await backend.close();
  }
}

/** LLM.int8() is off by its rounding; a budget of its own says by how much. */
const BUDGETS: Readonly<Record<ActivationMode["kind"], BudgetName>> = {
  float: "linear/quantized",
  quantized: "linear/quantized activations",
  llm_int8: "linear/llm_int8 against float",
};

function assertWithin(
  found: Float32Array,
  expected: Float64Array,
  mode: ActivationMode,
  where: string,
) {
  const budget = ERROR_BUDGETS[BUDGETS[mode.kind]];
  let [error, energy, worst, largest] = [0, 0, 0, 0];
  expected.forEach((value, index) => {
    const difference = Math.abs(found[index] - value);
    error += difference ** 2;
    energy += value ** 2;
    // Not Math.max: it must not hide a NaN.
    if (!(difference <= worst)) worst = difference;
    largest = Math.max(largest, Math.abs(value));
  });
  assert.ok(error / energy <= budget.nmse, `${where}: nmse ${error / energy}`);
  assert.ok(worst / largest <= budget.maxAbs, `${where}: largest error ${worst / largest}`);
}

/** Writes every tensor of a quantized folder again from what was read of it. */
async function writtenAgain(folder: string): Promise<[NamedTensor[], NamedTensor[]]> {
  const checkpoint = await openCheckpoint(folder);
  const config = await readConfig(folder);
  const { quantizer } = resolveQuantizer(checkpoint, { config });
  assert.ok(quantizer);
  const [before, after]: [NamedTensor[], NamedTensor[]] = [[], []];
  for (const stored of checkpoint.entries.keys()) {
    before.push({ name: stored, tensor: await checkpoint.read(stored, { packed: true }) });
    if (quantizer.isCompanion(stored, checkpoint)) continue;
    const name = quantizer.weightOf?.(stored, checkpoint) ?? stored;
    if (quantizer.isStored(name, checkpoint)) {
      after.push(...quantizer.write(name, await quantizer.read(name, checkpoint)));
    } else after.push({ name: stored, tensor: await checkpoint.read(stored) });
  }
  await checkpoint.close();
  return [before.sort(byName), after.sort(byName)];
}

function byName(a: NamedTensor, b: NamedTensor): number {
  return a.name < b.name ? -1 : 1;
}

async function quantizeTo(folder: string, row: FormatRow): Promise<void> {
  const quantizationConfig = formats.get(row.name)!.config();
  await quantizeCheckpoint(`${folder}/dense`, `${folder}/saved`, {
    quantizationConfig,
    linearNames,
  });
}

for (const row of formatTable()) {
  if (row.onTheFly) {
    test(`${row.name} quantizes on the fly and runs on every backend within its budget`, async () => {
      await inFolder(async (folder) => {
        await withWeights(`${folder}/dense`, row.name, async (weights) => {
          const tensor = await quantized(weights, SECOND);
          const x = randomValues(ROWS * MIDDLE, 4, 3);
          const mode = weights.catalog.lookup(SECOND)!.activations;
          const expected = product(x, tensor, mode);
          for (const options of backends) {
            const found = await runLinear(
              options,
              weights,
              HostTensor.fromFloat32(x, [ROWS, MIDDLE]),
            );
            assertWithin(found, expected, mode, options.backend);
          }
        });
      });
    });
  }

  if (row.save && row.load) {
    test(`${row.name} is saved, read back with the same bytes, and made dense`, async () => {
      await inFolder(async (folder) => {
        await quantizeTo(folder, row);
        const onTheFly = await withWeights(`${folder}/dense`, row.name, readBoth);
        const loaded = await withWeights(`${folder}/saved`, null, readBoth);
        assert.deepEqual(loaded, onTheFly);
        const [before, after] = await writtenAgain(`${folder}/saved`);
        assertSameTensors(after, before);
        await dequantizeCheckpoint(`${folder}/saved`, `${folder}/back`, { dtype: "float32" });
        const back = await openCheckpoint(`${folder}/back`);
        const dense = await back.read(SECOND);
        await back.close();
        assert.deepEqual(dense.toFloat32(), dequantize(onTheFly[1]));
      });
    });
  }

  test(`${row.name} has the bits per weight and activations that the table says`, () => {
    const config = formats.get(row.name)!.config();
    const quantizer = createQuantizer(config, { library: "diffusers", keepInFloat32: [] });
    const info = quantizer.describe(TYPICAL_LAYER, "bfloat16");
    assert.equal(row.activations, activationsText(info?.activations ?? { kind: "float" }));
    if (info === null) return assert.equal(row.bitsPerWeight, null);
    assert.ok(info.format.kind === "quantized", row.name);
    // Scales and tables cost something, and never as much as the codes of the narrowest format.
    const { bits } = info.format.layout;
    assert.ok(
      row.bitsPerWeight! >= bits && row.bitsPerWeight! < bits + 1.5,
      `${row.bitsPerWeight}`,
    );
  });
}
