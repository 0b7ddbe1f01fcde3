/** modelopt_state.pth against ModelOpt's own; make_modelopt_state_goldens.py made the states and pickles. */

import { test } from "node:test";
import assert from "node:assert/strict";
import { readFileSync, writeFileSync } from "node:fs";
import { unzipSync } from "fflate";
import { modelOfConfig } from "../../cli/model_classes.ts";
import { openCheckpoint, readConfig } from "../../src/io/checkpoint.ts";
import { dequantizeCheckpoint, quantizeCheckpoint } from "../../src/io/quantize_checkpoint.ts";
import { torchArchive } from "../../src/io/torch_archive.ts";
import {
  NVIDIAModelOptConfig,
  type NVIDIAModelOptOptions,
} from "../../src/quantization/modelopt_config.ts";
import {
  pickle,
  type PickleValue,
  PythonCall,
  PythonFloat,
  PythonGlobal,
  PythonTuple,
} from "../../src/quantization/python_pickle.ts";
import { BitsAndBytesConfig } from "../../src/quantization/bitsandbytes_config.ts";
import type { StateFile } from "../../src/quantization/quantizer.ts";
import { resolveQuantizer } from "../../src/quantization/weights.ts";
import { inFolder } from "../io/support.ts";
import { modelOptBlocks } from "./method_support.ts";
import { assertFails, GOLDENS, readGolden } from "./support.ts";

type Json = null | boolean | number | string | Json[] | { [key: string]: Json };
type Numbered = Record<string, number[]>;

interface Golden {
  readonly names: Record<string, string[]>;
  readonly attributes: Json[];
  readonly states: Record<string, {
    readonly modelopt_state_dict: { tuple: [string, { config: Json; metadata: Numbered }] }[];
    readonly modelopt_version: string;
  }>;
}

const MODEL = `${GOLDENS}pipelines/dev/transformer`;
const NAME = "modelopt_state.pth";

const SETTINGS: Record<string, NVIDIAModelOptOptions> = {
  FP8: { quantType: "FP8" },
  "FP8.channel": { quantType: "FP8", channelQuantize: 0 },
  "FP8.block": modelOptBlocks("FP8", 16),
  "INT8.channel": { quantType: "INT8", channelQuantize: 0 },
  "INT8.block": modelOptBlocks("INT8", 16),
  INT4: modelOptBlocks("INT4", 32),
  NF4: modelOptBlocks("NF4", 32, 256),
  NVFP4: modelOptBlocks("NVFP4", 16, 8),
  FP8_FP8: { quantType: "FP8_FP8", weightOnly: false },
  INT8_INT4: { quantType: "INT8_INT4", weightOnly: false, channelQuantize: 0 },
};

/** Quantizes the tiny transformer into a folder; with a range for the input of every layer where asked. */
async function quantized(folder: string, name: string, isCalibrated = false): Promise<void> {
  const model = modelOfConfig(await readConfig(MODEL), MODEL);
  const source = await openCheckpoint(MODEL);
  const modules = [...source.entries.keys()].map((key) => key.replace(/\.\w+$/, ""));
  await source.close();
  const inputAmax = Object.fromEntries(modules.map((module) => [module, 1]));
  const options = { ...SETTINGS[name], ...(isCalibrated ? { inputAmax } : {}) };
  await quantizeCheckpoint(MODEL, folder, {
    quantizationConfig: new NVIDIAModelOptConfig(options),
    linearNames: (tensor) => model.isLinearWeight(tensor),
    modules: model,
    dtype: "float32",
  });
}

/** What the quantizer of a saved folder says belongs beside its weights, and its config. */
async function stateOf(folder: string) {
  const config = await readConfig(folder);
  const checkpoint = await openCheckpoint(folder);
  const modules = modelOfConfig(config, folder);
  const { quantizer, preQuantized } = resolveQuantizer(checkpoint, { config, modules });
  await checkpoint.close();
  assert.ok(preQuantized);
  return { config, quantizer: quantizer!, state: quantizer!.stateFile!(checkpoint) };
}

/** JSON as the goldens' script makes it of Python's objects. */
function plain(value: PickleValue): Json {
  if (value instanceof PythonFloat) return { float: value.value };
  if (value instanceof PythonTuple) return { tuple: value.items.map(plain) };
  if (value instanceof PythonGlobal) return `${value.module}.${value.name}`;
  if (value instanceof PythonCall) {
    return {
      [plain(value.callable) as string]: (value.args.items[0] as PythonTuple).items as Json[],
    };
  }
  if (Array.isArray(value)) return value.map(plain);
  if (typeof value !== "object" || value === null) return value;
  const entries: [string | number, PickleValue][] = value instanceof Map
    ? [...value]
    : Object.entries(value);
  const kept = entries.filter(([key]) => key !== "_input_dtype");
  return Object.fromEntries(kept.map(([key, item]) => [String(key), plain(item)]));
}

const golden = await readGolden<Golden>("modelopt_state.json");

for (const [name, expected] of Object.entries(golden.states)) {
  test(`the state of ${name} has what ModelOpt's own has, config by config and quantizer by quantizer`, async () => {
    await inFolder(async (folder) => {
      await quantized(folder, name, name === "FP8_FP8");
      const { state } = await stateOf(folder);
      const found = plain((state as StateFile).content) as unknown as typeof expected;
      assert.equal(found.modelopt_version, expected.modelopt_version);
      const modes = expected.modelopt_state_dict.map(({ tuple: [mode] }) => mode);
      assert.deepEqual(found.modelopt_state_dict.map(({ tuple: [mode] }) => mode), modes);
      for (
        const [i, { tuple: [mode, { config, metadata }] }] of expected.modelopt_state_dict.entries()
      ) {
        const ours = found.modelopt_state_dict[i].tuple[1];
        assert.deepEqual(ours.config, config, mode);
        assert.deepEqual(Object.keys(ours.metadata).sort(), Object.keys(metadata).sort());
        for (const [part, numbers] of Object.entries(metadata)) {
          const names = golden.names[part];
          const said = ours.metadata[part] as unknown as Record<string, Json>;
          assert.deepEqual(Object.keys(said).sort(), names, `${mode} ${part}`);
          names.forEach((key, at) => {
            assert.deepEqual(said[key], golden.attributes[numbers[at]], `${mode} ${part} ${key}`);
          });
        }
      }
    });
  });
}

test("a folder has the state beside its weights, its config in their header and none in config.json", async () => {
  await inFolder(async (folder) => {
    await quantized(folder, "INT8_INT4");
    const { config, quantizer, state } = await stateOf(folder);
    assert.ok(!("quantization_config" in config));
    const modulesToNotConvert = ["x_embedder", "context_embedder", "time_text_embed", "norm_out"];
    const expected = new NVIDIAModelOptConfig({ ...SETTINGS.INT8_INT4, modulesToNotConvert });
    assert.deepEqual(quantizer.config, expected);
    assert.deepEqual(
      new Uint8Array(readFileSync(`${folder}/${NAME}`)),
      torchArchive(state!.content),
    );
  });
});

test("the archive has the files that torch.load wants, uncompressed", () => {
  const archive = torchArchive({ a: [1] });
  const files = unzipSync(archive);
  const names = ["archive/data.pkl", "archive/byteorder", "archive/version"];
  assert.deepEqual(Object.keys(files), names);
  assert.deepEqual(files[names[0]], pickle({ a: [1] }));
  assert.equal(new DataView(archive.buffer, archive.byteOffset).getUint16(8, true), 0);
});

test("what a folder held of another save's state is gone after the next", async () => {
  await inFolder(async (folder) => {
    const [from, to] = [`${folder}/fp8`, `${folder}/to`];
    await quantized(from, "FP8");
    await quantized(to, "FP8");
    await dequantizeCheckpoint(from, to);
    assert.throws(() => readFileSync(`${to}/${NAME}`), /ENOENT/);
    writeFileSync(`${to}/${NAME}`, "old");
    const quantizationConfig = new BitsAndBytesConfig({ loadIn8bit: true });
    await quantizeCheckpoint(MODEL, to, { quantizationConfig });
    assert.throws(() => readFileSync(`${to}/${NAME}`), /ENOENT/);
  });
});

test("a model whose LayerNorms are not known gets no state, and says its config in config.json", async () => {
  await inFolder(async (folder) => {
    const quantizationConfig = new NVIDIAModelOptConfig({ quantType: "FP8" });
    await quantizeCheckpoint(`${GOLDENS}pipelines/dev/text_encoder_2`, folder, {
      quantizationConfig,
    });
    assert.throws(() => readFileSync(`${folder}/${NAME}`), /ENOENT/);
    const { quantization_config: said } = await readConfig(folder);
    assert.deepEqual(said, quantizationConfig.toJSON());
  });
});

test("a header that does not hold a config of ModelOpt's is not believed", async () => {
  await inFolder(async (folder) => {
    await quantized(folder, "FP8");
    const checkpoint = await openCheckpoint(folder);
    for (const said of ["{", "7", '"modelopt"', '{"quant_method": "quanto"}', "null"]) {
      const metadata = { ...checkpoint.metadata, quantization_config: said };
      const { entries } = checkpoint;
      const read = checkpoint.read.bind(checkpoint);
      const { quantizer } = resolveQuantizer({ entries, metadata, read }, { config: {} });
      assert.deepEqual(quantizer!.config, new NVIDIAModelOptConfig({ quantType: "FP8" }), said);
    }
    await checkpoint.close();
  });
});

const size = (...shape: number[]) =>
  new PythonCall(new PythonGlobal("torch", "Size"), new PythonTuple([new PythonTuple(shape)]));
const texts = Array.from({ length: 300 }, (_, index) => `t${index}`);

const PICKLED: Record<string, PickleValue> = {
  None: null,
  True: true,
  False: false,
  "7.0": new PythonFloat(7),
  text: "abc",
  "text beyond ASCII": "ü🌈",
  "[]": [],
  "[1]": [1],
  "[1, 2]": [1, 2],
  "{}": {},
  "{-1: 128}": new Map([[-1, 128]]),
  "{-1: 1, -2: 2}": new Map([[-1, 1], [-2, 2]]),
  "()": new PythonTuple([]),
  "(1,)": new PythonTuple([1]),
  "(1, 2)": new PythonTuple([1, 2]),
  "(1, 2, 3)": new PythonTuple([1, 2, 3]),
  "(1, 2, 3, 4)": new PythonTuple([1, 2, 3, 4]),
  "torch.bfloat16": new PythonGlobal("torch", "bfloat16"),
  "torch.Size([])": size(),
  "torch.Size([2, 300])": size(2, 300),
  "a text twice": ["a", "a"],
  "300 texts twice": [...texts, ...texts],
};

test("pickles have the bytes of Python's own", async () => {
  const expected = await readGolden<Record<string, string>>("python_pickle.json");
  for (const [name, hex] of Object.entries(expected)) {
    const value = name in PICKLED ? PICKLED[name] : Number(name);
    const bytes = [...pickle(value)].map((byte) => byte.toString(16).padStart(2, "0"));
    assert.equal(bytes.join(""), hex, name);
  }
});

test("what a pickle has no place for is refused", async () => {
  const call = (text: string) => () => pickle(new PythonGlobal("torch", text));
  for (const number of [1.5, 2 ** 31, NaN]) {
    await assertFails(() => pickle(number), "invalid_argument", /32 bits/);
  }
  await assertFails(call("a\nb"), "invalid_argument", /dotted name/);
});
