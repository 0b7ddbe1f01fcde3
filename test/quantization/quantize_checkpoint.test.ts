/** Checkpoints that Diffusers and Transformers saved with bitsandbytes, made and read by us. */

import { test } from "node:test";
import assert from "node:assert/strict";
import { readFile, writeFile } from "node:fs/promises";
import { openCheckpoint, readConfig } from "../../src/io/checkpoint.ts";
import {
  dequantizeCheckpoint,
  isQuantizedCheckpoint,
  quantizeCheckpoint,
} from "../../src/io/quantize_checkpoint.ts";
import { writeCheckpoint } from "../../src/io/write_checkpoint.ts";
import { createQuantizer, type QuantizationConfigLike } from "../../src/quantization/auto.ts";
import {
  BitsAndBytesConfig,
  type BitsAndBytesOptions,
} from "../../src/quantization/bitsandbytes_config.ts";
import { dequantize } from "../../src/quantization/dequantize.ts";
import type { NamedTensor } from "../../src/quantization/quantizer.ts";
import { libraryOf } from "../../src/quantization/weights.ts";
import { inFolder } from "../io/support.ts";
import {
  assertFails,
  assertSameTensor,
  GOLDENS,
  readGolden,
  sha256,
  withCheckpoints,
} from "./support.ts";

const SOURCE = `${GOLDENS}pipelines/dev`;
const WEIGHTS = {
  transformer: "diffusion_pytorch_model.safetensors",
  text_encoder_2: "model.safetensors",
};
type Component = keyof typeof WEIGHTS;
const COMPONENTS = Object.keys(WEIGHTS) as Component[];

const SCHEMES: Record<string, BitsAndBytesOptions> = {
  nf4: { loadIn4bit: true, bnb4bitQuantType: "nf4" },
  fp4: { loadIn4bit: true, bnb4bitQuantType: "fp4" },
  int8: { loadIn8bit: true },
};

function savedBy(scheme: string, component: Component): string {
  return `${GOLDENS}bitsandbytes/models/${scheme}/${component}`;
}

/** The linear layers of each model, as nn.Linear in the Python classes. */
const LINEAR: Record<Component, (name: string) => boolean> = {
  transformer: (name) => name.endsWith(".weight") && !/norm_(added_)?[qk]\.weight$/.test(name),
  text_encoder_2: (name) => /(SelfAttention\.[qkvo]|DenseReluDense\.w\w+)\.weight$/.test(name),
};

async function quantize(component: Component, folder: string, options: BitsAndBytesOptions) {
  await quantizeCheckpoint(`${SOURCE}/${component}`, folder, {
    quantizationConfig: new BitsAndBytesConfig(options),
    linearNames: LINEAR[component],
    keepInFloat32: component === "text_encoder_2" ? ["wo"] : [],
  });
}

for (const [scheme, options] of Object.entries(SCHEMES)) {
  for (const component of COMPONENTS) {
    test(`quantizing ${component} to ${scheme} gives the file the Python library saves`, async () => {
      await inFolder(async (folder) => {
        await quantize(component, folder, options);
        const name = WEIGHTS[component];
        const expected = await readFile(`${savedBy(scheme, component)}/${name}`);
        assert.equal(sha256(await readFile(`${folder}/${name}`)), sha256(expected));
      });
    });
  }
}

test("quantizing with double quantization gives the file Diffusers saves on a CPU", async () => {
  const golden = await readGolden<{ nf4_double_transformer: string }>("bitsandbytes_native.json");
  await inFolder(async (folder) => {
    await quantize("transformer", folder, { ...SCHEMES.nf4, bnb4bitUseDoubleQuant: true });
    const file = await readFile(`${folder}/${WEIGHTS.transformer}`);
    assert.equal(sha256(file), golden.nf4_double_transformer);
  });
});

test("config.json is written as Diffusers writes it, floats included", async () => {
  await inFolder(async (folder) => {
    await quantize("transformer", folder, SCHEMES.int8);
    const text = await readFile(`${folder}/config.json`, "utf8");
    const expected = await readFile(`${savedBy("int8", "transformer")}/config.json`, "utf8");
    assert.equal(text, expected);
    assert.match(text, /"llm_int8_threshold": 6\.0,/);
  });
});

test("a config of Transformers keeps its floats as Python spells them", async () => {
  await inFolder(async (folder) => {
    await quantize("text_encoder_2", folder, SCHEMES.int8);
    const text = await readFile(`${folder}/config.json`, "utf8");
    assert.equal(text, await readFile(`${savedBy("int8", "text_encoder_2")}/config.json`, "utf8"));
    assert.match(text, /"layer_norm_epsilon": 1e-06,/);
  });
});

for (const scheme of ["nf4", "nf4_double", "fp4", "int8"]) {
  test(`${scheme} checkpoints are read and written back byte for byte`, async () => {
    for (const component of COMPONENTS) {
      await inFolder(async (folder) => await copyThroughLayout(scheme, component, folder));
    }
  });
}

async function copyThroughLayout(scheme: string, component: Component, folder: string) {
  const source = savedBy(scheme, component);
  const checkpoint = await openCheckpoint(source);
  const config = await readConfig(source);
  const quantizer = createQuantizer(config.quantization_config as QuantizationConfigLike, {
    library: libraryOf(config),
    keepInFloat32: [],
  });
  async function* tensors(): AsyncGenerator<NamedTensor> {
    for (const name of checkpoint.entries.keys()) {
      if (quantizer.isCompanion(name, checkpoint)) continue;
      if (!quantizer.isStored(name, checkpoint)) {
        yield { name, tensor: await checkpoint.read(name) };
      } else yield* quantizer.write(name, await quantizer.read(name, checkpoint));
    }
  }
  await writeCheckpoint(folder, undefined, tensors(), {});
  await checkpoint.close();
  const copy = await readFile(`${folder}/diffusion_pytorch_model.safetensors`);
  assert.equal(sha256(copy), sha256(await readFile(`${source}/${WEIGHTS[component]}`)), component);
}

test("dequantizing gives each weight in the type it came from, and a config without quantization", async () => {
  await inFolder(async (folder) => {
    const source = savedBy("nf4_double", "transformer");
    await dequantizeCheckpoint(source, folder);
    await withCheckpoints([folder, `${SOURCE}/transformer`], (dense, original) => {
      for (const [name, entry] of original.entries) {
        const made = dense.entries.get(name);
        assert.deepEqual([made?.dtype, made?.shape], [entry.dtype, entry.shape], name);
      }
      assert.equal(dense.entries.size, original.entries.size);
      return Promise.resolve();
    });
    const before = await readConfig(`${SOURCE}/transformer`);
    assert.deepEqual(await readConfig(folder), before);
    assert.equal(await isQuantizedCheckpoint(folder), false);
    assert.equal(await isQuantizedCheckpoint(source), true);
  });
});

test("dequantized weights are those of the layout in the type asked for", async () => {
  await inFolder(async (folder) => {
    const source = savedBy("int8", "transformer");
    await dequantizeCheckpoint(source, folder, { dtype: "float32" });
    const quantizer = createQuantizer({ load_in_8bit: true }, {
      library: "diffusers",
      keepInFloat32: [],
    });
    const name = "transformer_blocks.0.attn.to_q.weight";
    await withCheckpoints([source, folder], async (checkpoint, dense) => {
      const { tensor } = await quantizer.read(name, checkpoint);
      assert.deepEqual((await dense.read(name)).toFloat32(), dequantize(tensor));
      assert.equal((await dense.read("x_embedder.bias")).dtype, "float32");
    });
  });
});

test("one file is quantized by its 2-D weights and comes back through its keys", async () => {
  await inFolder(async (folder) => {
    const [file, back] = [`${folder}/int8.safetensors`, `${folder}/dense.safetensors`];
    const source = `${SOURCE}/transformer/${WEIGHTS.transformer}`;
    const quantizationConfig = new BitsAndBytesConfig({ loadIn8bit: true });
    const written = await quantizeCheckpoint(source, file, { quantizationConfig });
    assert.deepEqual(written.files, ["int8.safetensors"]);
    const expected = await readFile(`${savedBy("int8", "transformer")}/${WEIGHTS.transformer}`);
    assert.equal(sha256(await readFile(file)), sha256(expected));
    await dequantizeCheckpoint(file, back, { dtype: "bfloat16" });
    await withCheckpoints([back, source], (dense, original) => {
      assert.deepEqual([...dense.entries.keys()].sort(), [...original.entries.keys()].sort());
      return Promise.resolve();
    });
  });
});

test("a large checkpoint is written in shards that open as one", async () => {
  await inFolder(async (folder) => {
    const written = await quantizeCheckpoint(`${SOURCE}/transformer`, folder, {
      quantizationConfig: new BitsAndBytesConfig(SCHEMES.nf4),
      linearNames: LINEAR.transformer,
      maxShardSize: 20_000,
    });
    assert.ok(written.files.length > 3, `${written.files.length} files`);
    const paths = [folder, savedBy("nf4", "transformer")];
    await withCheckpoints(paths, async (sharded, whole) => {
      for (const name of whole.entries.keys()) {
        assertSameTensor(name, await sharded.read(name), await whole.read(name));
      }
    });
  });
});

test("weights quantized once are not quantized again, and dense ones not dequantized", async () => {
  await inFolder(async (folder) => {
    const quantizationConfig = new BitsAndBytesConfig(SCHEMES.nf4);
    await assertFails(
      () => quantizeCheckpoint(savedBy("int8", "transformer"), folder, { quantizationConfig }),
      "quantization_config",
      /Dequantize it first/,
    );
    await assertFails(
      () => dequantizeCheckpoint(`${SOURCE}/transformer`, folder),
      "quantization_config",
      /not quantized/,
    );
  });
});

test("an aborted conversion leaves nothing", async () => {
  await inFolder(async (folder) => {
    const abort = new AbortController();
    const onProgress = () => abort.abort();
    const quantizationConfig = new BitsAndBytesConfig(SCHEMES.nf4);
    const options = { quantizationConfig, signal: abort.signal, onProgress };
    await assertFails(
      () => quantizeCheckpoint(`${SOURCE}/transformer`, `${folder}/out`, options),
      "aborted",
      /aborted/,
    );
    assert.equal(await readFile(`${folder}/out/config.json`).catch(() => "none"), "none");
  });
});

test("a folder whose config.json is no JSON is refused", async () => {
  await inFolder(async (folder) => {
    await writeFile(`${folder}/config.json`, "{");
    const quantizationConfig = new BitsAndBytesConfig(SCHEMES.nf4);
    await assertFails(
      () => quantizeCheckpoint(folder, `${folder}/out`, { quantizationConfig }),
      "invalid_config",
      /config/,
    );
  });
});
