/**
 * Writes a model folder of middle size: a random transformer of width 1024, everything else the demo
 * model's. Its pictures show nothing; how far formats move them from float32 is what they are for.
 *
 *     deno run -A bench/mid_model.ts FOLDER [--heads 8] [--double 2] [--single 4] [--size 384] [--steps 4]
 */

import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { type NamedTensor, writeCheckpoint, writeModelFolder } from "../src/io/write_checkpoint.ts";
import { HostTensor } from "../src/tensor/host_tensor.ts";
import { elementCount, type Shape } from "../src/tensor/shape.ts";
import { transformerShapes } from "./random_transformer.ts";

const DEMO = fileURLToPath(new URL("../models/demo", import.meta.url));

/** How large. */
export interface MidModelOptions {
  /** Heads of 128 features. */
  readonly heads: number;
  /** Double blocks. */
  readonly double: number;
  /** Single blocks. */
  readonly single: number;
  /** Pixels of a side. */
  readonly size: number;
  readonly steps: number;
}

/** 145 million weights, so that a format takes some ten seconds on two threads. */
const DEFAULTS: MidModelOptions = { heads: 8, double: 2, single: 4, size: 384, steps: 4 };

/** Writes the folder, which must not be there yet. */
export async function writeMidModel(
  folder: string,
  options: Partial<MidModelOptions> = {},
): Promise<void> {
  const { heads, double, single, size, steps } = { ...DEFAULTS, ...options };
  const demo = JSON.parse(readFileSync(join(DEMO, "transformer/config.json"), "utf8"));
  const config = {
    ...demo,
    attention_head_dim: 128,
    axes_dims_rope: [16, 56, 56],
    num_attention_heads: heads,
    num_layers: double,
    num_single_layers: single,
  };
  await writeModelFolder(DEMO, folder, ["transformer"], async (unfinished) => {
    const tensors = normalTensors(transformerShapes(config));
    await writeCheckpoint(join(unfinished, "transformer"), config, tensors);
  });
  const defaults = {
    height: size,
    width: size,
    max_sequence_length: 32,
    num_inference_steps: steps,
  };
  writeFileSync(join(folder, "generation_config.json"), `${JSON.stringify(defaults, null, 2)}\n`);
}

/** A sum of four bytes is nearly normal, as weights are; evenly spread ones would flatter some formats. */
function* normalTensors(shapes: ReadonlyMap<string, Shape>): Generator<NamedTensor> {
  let state = 0x9e3779b9;
  for (const [name, shape] of shapes) {
    const levels = levelsOf(name, shape);
    const values = new Uint16Array(elementCount(shape));
    for (let at = 0; at < values.length; at++) {
      state ^= state << 13;
      state ^= state >>> 17;
      state ^= state << 5;
      const sum = (state & 255) + (state >>> 8 & 255) + (state >>> 16 & 255) + (state >>> 24);
      values[at] = levels[sum]!;
    }
    yield { name, tensor: new HostTensor("bfloat16", shape, new Uint8Array(values.buffer)) };
  }
}

/** The bfloat16 value of each sum of four bytes: around 1 for norms, else of variance 1 / inputs. */
function levelsOf(name: string, shape: Shape): Uint16Array {
  const isNorm = /\.norm_(added_)?[qk]\.weight$/.test(name);
  const [center, deviation] = isNorm ? [1, 0.05] : [0, Math.sqrt(1 / shape.at(-1)!)];
  const deviationOfSums = Math.sqrt((256 ** 2 - 1) / 3);
  const floats = Float32Array.from(
    { length: 4 * 255 + 1 },
    (_, sum) => center + deviation * (sum - 2 * 255) / deviationOfSums,
  );
  return new Uint16Array(HostTensor.fromFloat32(floats).cast("bfloat16").bytes.slice().buffer);
}

if (import.meta.main) {
  const { values, positionals } = parseArgs({
    args: process.argv.slice(2),
    allowPositionals: true,
    options: {
      heads: { type: "string" },
      double: { type: "string" },
      single: { type: "string" },
      size: { type: "string" },
      steps: { type: "string" },
    },
  });
  const numbers = Object.entries(values).map(([name, value]) => [name, Number(value)]);
  await writeMidModel(positionals[0]!, Object.fromEntries(numbers));
}
