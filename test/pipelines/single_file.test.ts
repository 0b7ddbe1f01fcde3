import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { test } from "node:test";
import { openCheckpoint } from "../../src/io/checkpoint.ts";
import { quantizeToGguf } from "../../src/io/quantize_gguf.ts";
import { writeSafetensors } from "../../src/io/write_checkpoint.ts";
import { fluxToSingleFile } from "../../src/models/flux_single_file.ts";
import { ggufFileOf } from "../../src/models/gguf_file.ts";
import { FluxPipeline } from "../../src/pipelines/flux.ts";
import type { FluxPipelineOptions } from "../../src/pipelines/flux_options.ts";
import { parseQuantizeFlags } from "../../src/quantization/formats.ts";
import type { GgufMix } from "../../src/quantization/gguf_mixes.ts";
import type { HostTensor } from "../../src/tensor/host_tensor.ts";
import { inFolder, rejects } from "../io/support.ts";
import { readGolden, SMALL_CALL } from "./goldens.ts";

const FOLDER = readGolden("heads_of_32").folder;

/** Writes a component of the model as a GGUF file, under the names other tools use. */
async function writeGgufOf(
  component: string,
  path: string,
  quantType: GgufMix,
  linearNames?: (name: string) => boolean,
): Promise<string> {
  const opened = await openCheckpoint(`${FOLDER}/${component}`);
  const { architecture, checkpoint } = ggufFileOf(opened);
  await quantizeToGguf(checkpoint, path, { quantType, architecture, linearNames });
  await opened.close();
  return path;
}

async function picture(options: FluxPipelineOptions, model = FOLDER): Promise<HostTensor> {
  await using pipe = await FluxPipeline.fromPretrained(model, { backend: "reference", ...options });
  return (await pipe.generate(SMALL_CALL)).latents;
}

for (const quantType of ["Q8_0", "Q4_0", "Q5_1", "IQ4_NL"] as const) {
  test(`GGUF files in ${quantType} give the picture that quantizing on the fly gives`, async () => {
    await inFolder(async (folder) => {
      // A file has a quantized embedding; while loading it stays dense.
      const isLinear = (name: string) => name !== "token_embd.weight";
      const files = {
        transformer: await writeGgufOf("transformer", `${folder}/flux.gguf`, quantType),
        textEncoder2: await writeGgufOf("text_encoder_2", `${folder}/t5.gguf`, quantType, isLinear),
      };
      const onTheFly = parseQuantizeFlags([`gguf:${quantType}`]);
      const expected = await picture({ quantizationConfig: onTheFly });
      assert.deepEqual((await picture(files)).bytes, expected.bytes);
      assert.notDeepEqual((await picture({})).bytes, expected.bytes);
    });
  });
}

test("a T5 file with a quantized embedding runs", async () => {
  await inFolder(async (folder) => {
    const textEncoder2 = await writeGgufOf("text_encoder_2", `${folder}/t5.gguf`, "Q8_0");
    const file = await openCheckpoint(textEncoder2);
    assert.equal(file.entries.get("token_embd.weight")?.ggufType, "Q8_0");
    await file.close();
    const [found, expected] = [await picture({ textEncoder2 }), await picture({})];
    const [a, b] = [found.toFloat32(), expected.toFloat32()];
    const distance = Math.hypot(...a.map((value, i) => value - b[i])) / Math.hypot(...b);
    assert.ok(distance > 0 && distance < 0.01, `${distance}`);
  });
});

for (const name of ["heads_of_32", "dev"]) {
  test(`a dense single file under other names gives the picture of the folder: ${name}`, async () => {
    await inFolder(async (folder) => {
      const model = readGolden(name).folder;
      const opened = await openCheckpoint(`${model}/transformer`);
      const single = fluxToSingleFile(opened);
      const tensors: Record<string, HostTensor> = {};
      for (const name of single.entries.keys()) tensors[name] = await single.read(name);
      await writeSafetensors(`${folder}/flux.safetensors`, tensors);
      await opened.close();
      const transformer = `${folder}/flux.safetensors`;
      const dense = await picture({ transformer }, model);
      assert.deepEqual(dense.bytes, (await picture({}, model)).bytes);
      const quantizationConfig = parseQuantizeFlags(["transformer=bitsandbytes:nf4"]);
      const quantized = await picture({ transformer, quantizationConfig }, model);
      assert.deepEqual(quantized.bytes, (await picture({ quantizationConfig }, model)).bytes);
    });
  });
}

test("a pipeline of single files is saved and opened again", async () => {
  await inFolder(async (folder) => {
    const transformer = await writeGgufOf("transformer", `${folder}/flux.gguf`, "Q8_0");
    await using pipe = await FluxPipeline.fromPretrained(FOLDER, {
      backend: "reference",
      transformer,
    });
    const { latents } = await pipe.generate(SMALL_CALL);
    await pipe.savePretrained(`${folder}/saved`);
    assert.ok(existsSync(`${folder}/saved/transformer/diffusion_pytorch_model.gguf`));
    assert.deepEqual((await picture({}, `${folder}/saved`)).bytes, latents.bytes);
  });
});

test("a pipeline quantized to GGUF on the fly is saved and opened again", async () => {
  await inFolder(async (folder) => {
    const quantizationConfig = parseQuantizeFlags(["gguf:Q5_0"]);
    await using pipe = await FluxPipeline.fromPretrained(FOLDER, {
      backend: "reference",
      quantizationConfig,
    });
    const { latents } = await pipe.generate(SMALL_CALL);
    await pipe.savePretrained(`${folder}/saved`);
    assert.deepEqual((await picture({}, `${folder}/saved`)).bytes, latents.bytes);
  });
});

test("a file of another model, and one that is not there, are refused", async () => {
  await inFolder(async (folder) => {
    const t5 = await writeGgufOf("text_encoder_2", `${folder}/t5.gguf`, "Q8_0");
    await rejects(() => picture({ transformer: t5 }), "missing_tensor");
    await rejects(() => picture({ transformer: `${folder}/none.gguf` }), "missing_file");
  });
});
