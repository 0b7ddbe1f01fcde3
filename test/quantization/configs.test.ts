/** Configs, dispatch and skip lists, with the rules of Diffusers and Transformers. */

import { test } from "node:test";
import assert from "node:assert/strict";
import {
  configFromDict,
  createQuantizer,
  detectQuantization,
  mergeQuantizationConfigs,
} from "../../src/quantization/auto.ts";
import {
  BitsAndBytesConfig,
  type BitsAndBytesOptions,
} from "../../src/quantization/bitsandbytes_config.ts";
import { parseQuantizeFlags, quantizeFormats } from "../../src/quantization/formats.ts";
import {
  checkPipelineConfig,
  PipelineQuantizationConfig,
  type PipelineQuantizationOptions,
} from "../../src/quantization/pipeline_config.ts";
import { pythonJson } from "../../src/quantization/python_json.ts";
import { skipsModule } from "../../src/quantization/skip_modules.ts";
import { HostTensor } from "../../src/tensor/host_tensor.ts";
import { assertFails, memoryReader } from "./support.ts";

const TARGET = { library: "diffusers", keepInFloat32: [] } as const;
const NF4: BitsAndBytesOptions = { loadIn4bit: true, bnb4bitQuantType: "nf4" };

test("a BitsAndBytesConfig has Diffusers' defaults", () => {
  // json.dumps(BitsAndBytesConfig().to_dict()) of Diffusers 0.42
  const expected =
    '{"quant_method": "bitsandbytes", "_load_in_8bit": false, "_load_in_4bit": false, ' +
    '"llm_int8_threshold": 6.0, "llm_int8_skip_modules": null, ' +
    '"llm_int8_enable_fp32_cpu_offload": false, "llm_int8_has_fp16_weight": false, ' +
    '"bnb_4bit_quant_type": "fp4", "bnb_4bit_use_double_quant": false, ' +
    '"bnb_4bit_compute_dtype": "float32", "bnb_4bit_quant_storage": "uint8", ' +
    '"load_in_4bit": false, "load_in_8bit": false}';
  assert.equal(pythonJson(new BitsAndBytesConfig().toDict()), expected);
});

test("a BitsAndBytesConfig goes through its dictionary unchanged", () => {
  const config = new BitsAndBytesConfig({
    ...NF4,
    llmInt8SkipModules: ["proj_out"],
    llmInt8Threshold: 4.5,
    bnb4bitUseDoubleQuant: true,
    bnb4bitComputeDtype: "bfloat16",
    bnb4bitQuantStorage: "bfloat16",
  });
  assert.deepEqual(BitsAndBytesConfig.fromDict(JSON.parse(JSON.stringify(config))), config);
});

test("what quantizes to what", () => {
  assert.equal(new BitsAndBytesConfig().quantizationMethod(), null);
  assert.equal(new BitsAndBytesConfig({ loadIn4bit: true }).quantizationMethod(), "fp4");
  assert.equal(new BitsAndBytesConfig(NF4).quantizationMethod(), "nf4");
  assert.equal(new BitsAndBytesConfig({ loadIn8bit: true }).quantizationMethod(), "llm_int8");
});

test("values that Diffusers refuses are refused, naming the field", async () => {
  const bad: [Record<string, unknown>, RegExp][] = [
    [{ load_in_4bit: true, load_in_8bit: true }, /both true/],
    [{ load_in_4bit: 1 }, /"load_in_4bit"/],
    [{ llm_int8_threshold: "6" }, /"llm_int8_threshold"/],
    [{ llm_int8_threshold: -1 }, /"llm_int8_threshold"/],
    [{ llm_int8_skip_modules: "proj_out" }, /"llm_int8_skip_modules"/],
    [{ llm_int8_has_fp16_weight: "no" }, /"llm_int8_has_fp16_weight"/],
    [{ bnb_4bit_compute_dtype: "float99" }, /"bnb_4bit_compute_dtype"/],
    [{ bnb_4bit_quant_type: "int4" }, /"bnb_4bit_quant_type"/],
    [{ bnb_4bit_use_double_quant: "yes" }, /"bnb_4bit_use_double_quant"/],
    [{ bnb_4bit_quant_storage: "int4" }, /"bnb_4bit_quant_storage"/],
  ];
  for (const [dict, message] of bad) {
    await assertFails(() => BitsAndBytesConfig.fromDict(dict), "quantization_config", message);
  }
});

test("a dictionary's load flags win over its quant_method", () => {
  const config = configFromDict({ quant_method: "torchao", load_in_4bit: true });
  assert.equal(config.backend, "bitsandbytes_4bit");
  assert.equal(configFromDict({ load_in_8bit: true }).backend, "bitsandbytes_8bit");
});

test("a dictionary without flags needs a known quant_method", async () => {
  await assertFails(() => configFromDict({}), "quantization_config", /"quant_method"/);
  // As in Diffusers: the plain name is no key of its mapping.
  for (const quant_method of ["bitsandbytes", "hqq"]) {
    await assertFails(
      () => configFromDict({ quant_method }),
      "quantization_config",
      /bitsandbytes_4bit, bitsandbytes_8bit/,
    );
  }
});

test("a config that asks for no width, or for training, gives no quantizer", async () => {
  await assertFails(
    () => createQuantizer(new BitsAndBytesConfig(), TARGET),
    "quantization_config",
    /both false/,
  );
  const training = new BitsAndBytesConfig({ loadIn8bit: true, llmInt8HasFp16Weight: true });
  await assertFails(() => createQuantizer(training, TARGET), "unsupported", /llm_int8_has_fp16/);
});

test("the checkpoint's config wins over the caller's, with one warning", () => {
  const warnings: string[] = [];
  const warn = (message: string) => warnings.push(message);
  const own = { quant_method: "bitsandbytes", load_in_8bit: true };
  assert.equal(mergeQuantizationConfigs(own, null, warn).backend, "bitsandbytes_8bit");
  assert.deepEqual(warnings, []);
  const merged = mergeQuantizationConfigs(own, new BitsAndBytesConfig(NF4), warn);
  assert.equal(merged.backend, "bitsandbytes_8bit");
  assert.equal(warnings.length, 1);
});

test("keys alone tell how a checkpoint was quantized", () => {
  const byte = HostTensor.zeros("uint8", [1]);
  const named = (...names: string[]) => memoryReader(names.map((name) => ({ name, tensor: byte })));
  assert.equal(detectQuantization(named("a.weight", "a.bias")), null);
  const int8 = detectQuantization(named("a.weight", "a.SCB"));
  assert.equal(int8?.backend, "bitsandbytes_8bit");
  const state = "a.weight.quant_state.bitsandbytes__nf4";
  const nested = detectQuantization(named("a.weight", "a.weight.nested_absmax", state));
  assert.ok(nested instanceof BitsAndBytesConfig);
  assert.equal(nested.quantizationMethod(), "nf4");
  assert.equal(nested.bnb4bitUseDoubleQuant, true);
});

test("Diffusers matches a skip list by last component, part before a dot, or whole name", () => {
  const skips = (module: string, ...list: string[]) => skipsModule(module, list, "diffusers");
  assert.ok(skips("proj_out", "proj_out"));
  assert.ok(skips("single_transformer_blocks.3.proj_out", "proj_out"));
  assert.ok(skips("transformer_blocks.0.attn.to_q", "transformer_blocks.0"));
  assert.ok(skips("transformer_blocks.0.attn.to_q", "attn"));
  assert.ok(!skips("transformer_blocks.10.attn.to_q", "transformer_blocks.1"));
  assert.ok(!skips("transformer_blocks.0.attn.to_q", "to"));
  assert.ok(!skips("transformer_blocks.0.attn.to_q", "to_q.weight"));
});

test("Transformers matches a skip list by prefix, pattern or suffix", () => {
  const skips = (module: string, ...list: string[]) => skipsModule(module, list, "transformers");
  const wo = "encoder.block.0.layer.1.DenseReluDense.wo";
  assert.ok(skips(wo, "wo"));
  assert.ok(skips(wo, "encoder.block.0"));
  assert.ok(skips(wo, "encoder.block.\\d+"));
  assert.ok(!skips("encoder.block.10.layer.0.SelfAttention.q", "encoder.block.1"));
  assert.ok(!skips("encoder.block.0.layer.0.SelfAttention.q", "SelfAttention"));
});

test("a skip list entry that is no pattern is refused where it would be one", async () => {
  const match = () => skipsModule("encoder.block", ["a("], "transformers");
  await assertFails(match, "quantization_config", /llm_int8_skip_modules/);
});

test("one backend serves all components, or those listed", () => {
  const options = { quantBackend: "bitsandbytes_4bit", quantKwargs: { load_in_4bit: true } };
  const all = new PipelineQuantizationConfig(options);
  assert.equal(all.resolve("vae")?.backend, "bitsandbytes_4bit");
  const one = new PipelineQuantizationConfig({ ...options, componentsToQuantize: "transformer" });
  assert.equal(one.resolve("transformer")?.backend, "bitsandbytes_4bit");
  assert.equal(one.resolve("vae"), undefined);
  assert.deepEqual(one.unknownComponents(["vae"]), ["transformer"]);
});

test("components to quantize must be names", async () => {
  for (const componentsToQuantize of [3, { a: 1 }, [null], ["transformer", 3]]) {
    const options = { quantBackend: "bitsandbytes_4bit", quantKwargs: { load_in_4bit: true } };
    const given = { ...options, componentsToQuantize } as PipelineQuantizationOptions;
    await assertFails(
      () => new PipelineQuantizationConfig(given),
      "quantization_config",
      /componentsToQuantize/,
    );
  }
});

test("a backend's arguments may be spelled in either case", () => {
  const config = new PipelineQuantizationConfig({
    quantBackend: "bitsandbytes_4bit",
    quantKwargs: { loadIn4bit: true, bnb_4bit_quant_type: "nf4" },
  }).resolve("transformer");
  assert.ok(config instanceof BitsAndBytesConfig);
  assert.equal(config.quantizationMethod(), "nf4");
});

test("a mapping serves the components it names", () => {
  const transformer = new BitsAndBytesConfig(NF4);
  const config = new PipelineQuantizationConfig({ quantMapping: { transformer } });
  assert.equal(config.resolve("transformer"), transformer);
  assert.equal(config.resolve("text_encoder_2"), undefined);
  assert.equal(config.resolve("toString"), undefined);
});

test("pipeline configs that Diffusers refuses are refused", async () => {
  const quantMapping = { transformer: new BitsAndBytesConfig(NF4) };
  const quantKwargs = { load_in_4bit: true };
  const bad: [PipelineQuantizationOptions, RegExp][] = [
    [{}, /neither/],
    [{ quantMapping: {} }, /neither/],
    [{ quantBackend: "bitsandbytes_4bit", quantKwargs, quantMapping }, /both/],
    [{ quantBackend: "bitsandbytes_4bit" }, /quantKwargs/],
    [{ quantBackend: "bitsandbytes", quantKwargs }, /bitsandbytes_4bit/],
    [{ quantBackend: "bitsandbytes_4bit", quantKwargs: { load_in_4bit: 1 } }, /load_in_4bit/],
    [{ quantMapping: { vae: {} as never } }, /quantMapping\.vae/],
  ];
  for (const [options, message] of bad) {
    const create = () => new PipelineQuantizationConfig(options);
    await assertFails(create, "quantization_config", message);
  }
});

test("a pipeline refuses the config of a single model", async () => {
  const config = new PipelineQuantizationConfig({
    quantMapping: { transformer: new BitsAndBytesConfig(NF4) },
  });
  assert.equal(checkPipelineConfig(config), config);
  assert.equal(checkPipelineConfig(null), undefined);
  await assertFails(
    () => checkPipelineConfig(new BitsAndBytesConfig(NF4)),
    "quantization_config",
    /single model/,
  );
});

test("the command line's formats give their configs, for two components or the one named", () => {
  assert.equal(parseQuantizeFlags([]), undefined);
  const names = quantizeFormats().map((format) => format.fullName);
  assert.deepEqual(names.slice(0, 5), [
    "bitsandbytes:nf4",
    "bitsandbytes:nf4-dq",
    "bitsandbytes:fp4",
    "bitsandbytes:fp4-dq",
    "bitsandbytes:int8",
  ]);
  const config = parseQuantizeFlags(["bitsandbytes:int8", "transformer=bitsandbytes:nf4-dq"]);
  const transformer = config?.resolve("transformer");
  assert.ok(transformer instanceof BitsAndBytesConfig);
  assert.equal(transformer.bnb4bitUseDoubleQuant, true);
  assert.equal(config?.resolve("text_encoder_2")?.backend, "bitsandbytes_8bit");
  assert.equal(config?.resolve("text_encoder"), undefined);
});

test("a flag that names its component counts whatever the order, and none may come twice", async () => {
  const config = parseQuantizeFlags(["transformer=quanto:int8", "bitsandbytes:nf4"]);
  assert.equal(config?.resolve("transformer")?.backend, "quanto");
  assert.equal(config?.resolve("text_encoder_2")?.backend, "bitsandbytes_4bit");
  const twice = [
    ["bitsandbytes:nf4", "quanto:int8"],
    ["quanto:int8", "quanto:int8"],
    ["transformer=bitsandbytes:nf4", "quanto:int4", "transformer=bitsandbytes:nf4"],
  ];
  for (const flags of twice) {
    await assertFails(() => parseQuantizeFlags(flags), "invalid_argument", /two formats/);
  }
});

test("an unknown format is refused with the list of known ones", async () => {
  for (const flag of ["nf4", "bitsandbytes:nf5", "=bitsandbytes:nf4", "transformer=", ""]) {
    await assertFails(() => parseQuantizeFlags([flag]), "invalid_argument", /bitsandbytes:int8/);
  }
});
