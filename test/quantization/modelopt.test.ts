/** Bytes against NVIDIA ModelOpt itself; test/goldens/make_modelopt_goldens.py made the hashes. */

import { test } from "node:test";
import assert from "node:assert/strict";
import { openCheckpoint } from "../../src/io/checkpoint.ts";
import {
  dequantizeCheckpoint,
  isQuantizedCheckpoint,
  quantizeCheckpoint,
} from "../../src/io/quantize_checkpoint.ts";
import { quantizeFormats } from "../../src/quantization/formats.ts";
import {
  NVIDIAModelOptConfig,
  type NVIDIAModelOptOptions,
} from "../../src/quantization/modelopt_config.ts";
import { openWeights } from "../../src/quantization/weights.ts";
import { HostTensor } from "../../src/tensor/host_tensor.ts";
import { inFolder } from "../io/support.ts";
import {
  assertRoundTrip,
  dequantized,
  type MethodCase,
  modelOptBlocks,
  quantizerInputs,
  quantizerOf,
  shortHash,
} from "./method_support.ts";
import { assertFails, GOLDENS, noPause, readGolden } from "./support.ts";

const { cases } = await readGolden<{ cases: MethodCase[] }>("modelopt.json");
const inputs = await quantizerInputs();
const SOURCE = `${GOLDENS}pipelines/dev/transformer/diffusion_pytorch_model.safetensors`;

const SETTINGS: Record<string, NVIDIAModelOptOptions> = {
  FP8: { quantType: "FP8" },
  "FP8.channel": { quantType: "FP8", channelQuantize: 0 },
  "FP8.block": { quantType: "FP8", channelQuantize: -1, blockQuantize: 64 },
  "FP8.mse": { quantType: "FP8", algorithm: "mse" },
  "FP8.channel.mse": { quantType: "FP8", channelQuantize: 0, algorithm: "mse" },
  "FP8.block.mse": { quantType: "FP8", channelQuantize: -1, blockQuantize: 64, algorithm: "mse" },
  INT8: { quantType: "INT8" },
  "INT8.channel": { quantType: "INT8", channelQuantize: 0 },
  "INT8.block": modelOptBlocks("INT8", 64),
  INT4: modelOptBlocks("INT4", 64),
  NF4: modelOptBlocks("NF4", 64, 256),
  "NF4.small": modelOptBlocks("NF4", 32, 8),
  NVFP4: modelOptBlocks("NVFP4", 16, 8),
};

function method(scheme: string) {
  return quantizerOf(new NVIDIAModelOptConfig(SETTINGS[scheme]));
}

/** ModelOpt divides zero by a scale of zero here and stores NaN; we store zeros. */
function isNaNInModelOpt({ input, scheme }: MethodCase): boolean {
  if (scheme === "NVFP4") return input.startsWith("zeros.");
  return scheme.startsWith("FP8") && (input.startsWith("zeros.") || input === "tiny.float16");
}

test("every format's tensors and dequantized weights equal ModelOpt's", async () => {
  let equal = 0, excepted = 0;
  for (const { input, scheme, sha256 } of cases) {
    const dense = inputs.get(input)!;
    const quantizer = method(scheme);
    const weight = await quantizer.quantize("m.weight", dense, noPause);
    await assertRoundTrip(quantizer, "m.weight", dense, weight);
    const parts = new Map(
      quantizer.write("m.weight", weight).map((t) => [t.name.replace("m.", ""), t.tensor]),
    );
    assert.deepEqual(
      [...parts.keys()].sort(),
      Object.keys(sha256).filter((k) => k !== "dequantized").sort(),
    );
    parts.set("dequantized", dequantized(quantizer, weight));
    if (isNaNInModelOpt({ input, scheme, sha256 })) {
      excepted++;
      assert.ok(
        dequantized(quantizer, weight).toFloat32().every((value) =>
          value === 0 || Number.isFinite(value)
        ),
      );
      continue;
    }
    for (const [part, hash] of Object.entries(sha256)) {
      assert.equal(shortHash(parts.get(part)!.bytes), hash, `${input} ${scheme}: ${part}`);
      equal++;
    }
  }
  assert.ok(equal >= 1000, `${equal} tensors`);
  assert.equal(excepted, 27);
});

for (
  const { fullName, config } of quantizeFormats().filter((f) => f.fullName.startsWith("modelopt:"))
) {
  test(`a checkpoint in ${fullName} is detected without its config, read and dequantized`, async () => {
    await inFolder(async (folder) => {
      const [file, dense] = [`${folder}/quantized.safetensors`, `${folder}/dense.safetensors`];
      const quantizationConfig = fullName === "modelopt:int4" || fullName === "modelopt:nf4"
        ? NVIDIAModelOptConfig.fromDict({ ...config().toDict(), block_quantize: 32 })
        : config();
      await quantizeCheckpoint(SOURCE, file, { quantizationConfig });
      assert.ok(await isQuantizedCheckpoint(file));
      const checkpoint = await openCheckpoint(file);
      const name = "transformer_blocks.0.attn.to_q.weight";
      const weights = await openWeights(checkpoint, { config: {}, linearNames: () => true });
      assert.equal(weights.quantizationConfig?.quantMethod, "modelopt");
      const info = weights.catalog.lookup(name)!;
      assert.equal(info.format.kind, "quantized");
      assert.deepEqual([...info.shape], [32, 32]);
      assert.equal(weights.catalog.lookup("proj_out.weight")!.format.kind, "dense");
      await checkpoint.close();
      await dequantizeCheckpoint(file, dense);
      const [source, back] = [await openCheckpoint(SOURCE), await openCheckpoint(dense)];
      assert.deepEqual([...back.entries.keys()].sort(), [...source.entries.keys()].sort());
      const before = (await source.read(name)).toFloat32(),
        after = (await back.read(name)).toFloat32();
      const error = before.reduce((sum, value, i) => sum + (value - after[i]) ** 2, 0);
      const energy = before.reduce((sum, value) => sum + value ** 2, 0);
      assert.ok(error / energy < 0.02, `${error / energy}`);
      await source.close();
      await back.close();
    });
  });
}

test("a search for the least squared error lessens it, for weights of many slices too", async () => {
  const dense = inputs.get("weights.float32")!;
  const values = dense.toFloat32();
  const errorOf = async (scheme: string) => {
    const quantizer = method(scheme);
    const weight = await quantizer.quantize("m.weight", dense, noPause);
    const found = dequantized(quantizer, weight).toFloat32();
    return values.reduce((sum, value, index) => sum + (value - found[index]) ** 2, 0);
  };
  assert.ok(await errorOf("FP8.mse") < await errorOf("FP8"));
  assert.ok(await errorOf("FP8.channel.mse") < await errorOf("FP8.channel"));
  // More values than one slice holds: the same ones again and again have the same best range.
  const many = new Float32Array(80 * values.length);
  for (let at = 0; at < many.length; at += values.length) many.set(values, at);
  const large = HostTensor.fromFloat32(many, [80 * dense.shape[0], dense.shape[1]]);
  const amaxOf = async (tensor: HostTensor) => {
    const written = (await method("FP8.mse").quantize("m.weight", tensor, noPause)).verbatim!;
    return written.get("_amax")!.toFloat32()[0];
  };
  assert.equal(await amaxOf(large), await amaxOf(dense));
});

test("modules are skipped by wildcards, and proj_out always", () => {
  const quantizer = quantizerOf(
    new NVIDIAModelOptConfig({
      quantType: "FP8",
      modulesToNotConvert: ["attn.to_?", "time*embedder"],
    }),
  );
  assert.ok(quantizer.skips("transformer_blocks.0.attn.to_q"));
  assert.ok(quantizer.skips("time_text_embed.timestep_embedder.linear_1"));
  assert.ok(quantizer.skips("single_transformer_blocks.3.proj_out"));
  assert.ok(!quantizer.skips("transformer_blocks.0.ff.net.2"));
});

test("config.json's dictionary gives the config back", () => {
  for (const options of Object.values(SETTINGS)) {
    const config = new NVIDIAModelOptConfig(options);
    assert.deepEqual(NVIDIAModelOptConfig.fromDict(config.toDict()), config);
  }
});

test("configs that cannot be stored are refused", async () => {
  const make = (options: NVIDIAModelOptOptions) => () => new NVIDIAModelOptConfig(options);
  await assertFails(make({ quantType: "FP9" }), "quantization_config", /quant_type/);
  const nf4 = { quantType: "FP8_NF4", weightOnly: false };
  await assertFails(make(nf4), "unsupported", /quant_type/);
  const inBlocks = { ...modelOptBlocks("INT4", 64), weightOnly: false };
  await assertFails(make(inBlocks), "unsupported", /weight_only/);
  const unused = { quantType: "FP8", inputAmax: { m: 1 } };
  await assertFails(make(unused), "quantization_config", /weight_only/);
  const infinite = { quantType: "FP8", weightOnly: false, inputAmax: { m: Infinity } };
  await assertFails(make(infinite), "quantization_config", /input_amax of m/);
  await assertFails(make({ quantType: "INT4" }), "quantization_config", /block_quantize/);
  await assertFails(make(modelOptBlocks("NF4", 64)), "quantization_config", /scale_block_quantize/);
  await assertFails(
    make({ quantType: "INT8", channelQuantize: 1 }),
    "unsupported",
    /channel_quantize/,
  );
  await assertFails(make({ quantType: "FP8", algorithm: "awq" }), "unsupported", /max or mse/);
  await assertFails(make({ quantType: "INT8", algorithm: "mse" }), "unsupported", /algorithm/);
  // What a checkpoint was calibrated by does not matter to who reads it.
  const calibrated = { quant_type: "INT8", calib_cfg: { method: "mse" } };
  assert.equal(NVIDIAModelOptConfig.fromDict(calibrated).algorithm, "max");
  assert.equal(make({ quantType: "FP8_INT8" })().quantType, "FP8"); // weight-only: activations stay
});

test("damaged weights are named: a missing scale, other blocks", async () => {
  const dense = inputs.get("normal.bfloat16")!;
  const read = async (scheme: string, change: (entries: Map<string, HostTensor>) => void) => {
    const quantizer = method(scheme);
    const weight = await quantizer.quantize("m.weight", dense, noPause);
    const entries = new Map(quantizer.write("m.weight", weight).map((t) => [t.name, t.tensor]));
    change(entries);
    const reader = { entries, read: (name: string) => Promise.resolve(entries.get(name)!) };
    return await quantizer.read("m.weight", reader);
  };
  const scale = "m.weight_quantizer._scale";
  await assertFails(() => read("FP8", (e) => e.delete(scale)), "missing_tensor", /_scale/);
  const odd = HostTensor.zeros("bfloat16", [7, 1]);
  await assertFails(
    () => read("INT4", (e) => e.set(scale, odd)),
    "tensor_shape_mismatch",
    /blocks/,
  );
  await assertFails(() => read("NF4", () => {}), "tensor_shape_mismatch", /rows/);
  const type = HostTensor.zeros("int16", [8, 256]);
  await assertFails(
    () => read("FP8", (e) => e.set("m.weight", type)),
    "tensor_shape_mismatch",
    /int16/,
  );
});
