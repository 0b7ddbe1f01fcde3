/** Bytes against optimum-quanto itself; test/goldens/make_quanto_goldens.py made the hashes. */

import { test } from "node:test";
import assert from "node:assert/strict";
import { openCheckpoint, readConfig } from "../../src/io/checkpoint.ts";
import {
  dequantizeCheckpoint,
  isQuantizedCheckpoint,
  quantizeCheckpoint,
} from "../../src/io/quantize_checkpoint.ts";
import { QuantoConfig, type QuantoDType } from "../../src/quantization/quanto_config.ts";
import { quantoGroupSize } from "../../src/quantization/quanto_tensors.ts";
import { openWeights } from "../../src/quantization/weights.ts";
import { HostTensor } from "../../src/tensor/host_tensor.ts";
import { inFolder } from "../io/support.ts";
import {
  assertRoundTrip,
  checkpointHashes,
  dequantized,
  type MethodCase,
  quantizerInputs,
  quantizerOf,
  shortHash,
} from "./method_support.ts";
import { assertFails, GOLDENS, noPause, randomValues, readGolden, tensorOf } from "./support.ts";

interface Goldens {
  readonly cases: MethodCase[];
  readonly models: Record<string, {
    readonly sha256: Record<string, string>;
    readonly quantization_config: Record<string, unknown>;
  }>;
}

const goldens = await readGolden<Goldens>("quanto.json");
const inputs = await quantizerInputs();
const SOURCE = `${GOLDENS}pipelines/dev/transformer`;

function quantizer(weightsDtype: string) {
  return quantizerOf(new QuantoConfig({ weightsDtype: weightsDtype as QuantoDType }));
}

/** Quanto divides zero by a scale of zero here and stores NaN; we store zeros. */
function isNaNInQuanto({ input, scheme }: MethodCase): boolean {
  return scheme === "float8" && (input.startsWith("zeros.") || input === "tiny.float16");
}

test("every format's tensors and dequantized weights equal Quanto's", async () => {
  let equal = 0, excepted = 0;
  for (const { input, scheme, sha256 } of goldens.cases) {
    const dense = inputs.get(input)!;
    const method = quantizer(scheme);
    const weight = await method.quantize("m.weight", dense, noPause);
    await assertRoundTrip(method, "m.weight", dense, weight);
    const parts = new Map(
      method.write("m.weight", weight).map((t) => [t.name.replace("m.", ""), t.tensor]),
    );
    parts.set("dequantized", dequantized(method, weight));
    if (isNaNInQuanto({ input, scheme, sha256 })) {
      excepted++;
      assert.ok(dequantized(method, weight).toFloat32().every((value) => Number.isFinite(value)));
      continue;
    }
    assert.deepEqual([...parts.keys()].sort(), Object.keys(sha256).sort());
    for (const [part, tensor] of parts) {
      assert.equal(shortHash(tensor.bytes), sha256[part], `${input} ${scheme}: ${part}`);
      equal++;
    }
  }
  assert.ok(equal >= 600, `${equal} tensors`);
  assert.equal(excepted, 4);
});

for (const [scheme, model] of Object.entries(goldens.models)) {
  test(`a transformer quantized to ${scheme} has the tensors and config Diffusers saves`, async () => {
    await inFolder(async (folder) => {
      await quantizeCheckpoint(SOURCE, folder, {
        quantizationConfig: QuantoConfig.fromDict(model.quantization_config),
        linearNames: (name) =>
          name.endsWith(".weight") && !/norm_(added_)?[qk]\.weight$/.test(name),
        dtype: "bfloat16",
      });
      assert.deepEqual((await checkpointHashes(folder)).hashes, model.sha256);
      assert.deepEqual((await readConfig(folder)).quantization_config, model.quantization_config);
    });
  });

  test(`a checkpoint in ${scheme} is detected without its config, read and dequantized`, async () => {
    await inFolder(async (folder) => {
      const [file, dense] = [`${folder}/quantized.safetensors`, `${folder}/dense.safetensors`];
      const source = `${SOURCE}/diffusion_pytorch_model.safetensors`;
      const quantizationConfig = new QuantoConfig({ weightsDtype: scheme as QuantoDType });
      await quantizeCheckpoint(source, file, { quantizationConfig });
      assert.ok(await isQuantizedCheckpoint(file));
      const checkpoint = await openCheckpoint(file);
      const weights = await openWeights(checkpoint, { config: {}, linearNames: () => true });
      assert.deepEqual(weights.quantizationConfig?.toDict(), quantizationConfig.toDict());
      const info = weights.catalog.lookup("single_transformer_blocks.0.proj_out.weight")!;
      assert.equal(info.format.kind, "quantized");
      assert.deepEqual(
        [...info.shape],
        (await shapesOf(source)).get("single_transformer_blocks.0.proj_out.weight"),
      );
      await checkpoint.close();
      await dequantizeCheckpoint(file, dense);
      assert.deepEqual(await shapesOf(dense), await shapesOf(source));
    });
  });
}

async function shapesOf(file: string): Promise<Map<string, readonly number[]>> {
  const checkpoint = await openCheckpoint(file);
  const shapes = [...checkpoint.entries].map(([name, { shape }]) => [name, [...shape]] as const);
  await checkpoint.close();
  return new Map(shapes.sort(([a], [b]) => a < b ? -1 : 1));
}

test("groups are 128 columns, fewer where that does not divide, or the row", () => {
  const sizes = [64, 128, 256, 160, 192, 130, 3072].map(quantoGroupSize);
  assert.deepEqual(sizes, [64, 128, 128, 32, 96, 130, 128]);
});

test("rows that do not fill the packed parts keep their values", async () => {
  for (const kind of ["int4", "int2"]) {
    const dense = tensorOf(randomValues(5 * 64, 3), [5, 64]);
    const method = quantizer(kind);
    const weight = await method.quantize("m.weight", dense, noPause);
    const [data] = method.write("m.weight", weight);
    assert.deepEqual([...data.tensor.shape], [kind === "int4" ? 3 : 2, 64]);
    await assertRoundTrip(method, "m.weight", dense, weight);
  }
});

test("skip lists name the last component of a module only", () => {
  const method = quantizerOf(new QuantoConfig({ modulesToNotConvert: ["proj_out", "a.linear"] }));
  assert.ok(method.skips("blocks.0.proj_out"));
  assert.ok(!method.skips("a.linear"));
  assert.ok(!method.skips("proj_out.0"));
});

test("configs that Quanto refuses are refused", async () => {
  const make = (weightsDtype: string) =>
    new QuantoConfig({ weightsDtype: weightsDtype as QuantoDType });
  await assertFails(() => make("int3"), "quantization_config", /weights_dtype/);
  const active = { weights: "int8", activations: "int8" };
  await assertFails(() => QuantoConfig.fromDict(active), "quantization_config", /weight-only/);
  assert.equal(QuantoConfig.fromDict({ weights: "int4" }).weightsDtype, "int4");
});

test("damaged weights are named: a missing scale, other shapes", async () => {
  const method = quantizer("int4");
  const dense = inputs.get("normal.bfloat16")!;
  const parts = method.write("m.weight", await method.quantize("m.weight", dense, noPause));
  const read = (change: (entries: Map<string, HostTensor>) => void) => {
    const entries = new Map(parts.map(({ name, tensor }) => [name, tensor]));
    change(entries);
    const reader = { entries, read: (name: string) => Promise.resolve(entries.get(name)!) };
    return method.read("m.weight", reader);
  };
  await assertFails(() => read((e) => e.delete("m.weight._shift")), "missing_tensor", /_shift/);
  const short = HostTensor.zeros("uint8", [7, 128]);
  await assertFails(
    () => read((e) => e.set("m.weight._data._data", short)),
    "tensor_shape_mismatch",
    /16 groups/,
  );
  const vector = HostTensor.zeros("bfloat16", [7]);
  await assertFails(
    () => read((e) => e.set("m.bias", vector)),
    "tensor_shape_mismatch",
    /multiple/,
  );
});
