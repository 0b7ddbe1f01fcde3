/** Tiny GGUF files of every type, with damaged headers and blocks, read down to the weights. */

import { checkpointFromSources } from "../../../src/io/checkpoint.ts";
import { serializeGguf } from "../../../src/io/gguf_writer.ts";
import { METHODS } from "../../../src/quantization/auto.ts";
import { memorySource } from "../../../src/runtime/byte_source.ts";
import { openWeights } from "../../../src/quantization/weights.ts";
import { join } from "../../io/gguf_file.ts";
import { noPause, randomValues, tensorOf } from "../../quantization/support.ts";
import { mutateBytes } from "../mutate.ts";
import type { Random } from "../random.ts";
import type { FuzzTarget } from "../target.ts";
import { readWeight } from "./read_weight.ts";

const NAME = "blocks.0.ff.weight";
const SHAPE = [4, 512];

/** One target per type of block that the GGUF method writes. */
export async function ggufCheckpointTargets(): Promise<FuzzTarget<Uint8Array>[]> {
  const method = METHODS.find(({ name }) => name === "gguf");
  const targets = new Map<string, FuzzTarget<Uint8Array>>();
  for (const format of method?.formats ?? []) {
    const target = { library: "diffusers", keepInFloat32: [] } as const;
    const quantizer = method!.create(format.config(), target);
    const dense = tensorOf(randomValues(SHAPE[0] * SHAPE[1], 1), SHAPE);
    const [written] = quantizer.write(NAME, await quantizer.quantize(NAME, dense, noPause));
    const type = written.ggufType!;
    targets.set(type, ggufTarget(type, fileOf(type, written.tensor.bytes)));
  }
  return [...targets.values()];
}

function fileOf(type: string, data: Uint8Array): Uint8Array {
  const bias = tensorOf(randomValues(4, 2), [4]);
  return serializeGguf([
    { name: NAME, type: type as "Q4_K", shape: SHAPE, data },
    { name: "blocks.0.ff.bias", type: "F32", shape: [4], data: bias.bytes },
  ], [["general.architecture", { type: "string", value: "flux" }]]);
}

function ggufTarget(type: string, good: Uint8Array): FuzzTarget<Uint8Array> {
  return {
    name: `checkpoint gguf ${type}`,
    make: (random) => mutant(random, good),
    size: (file) => file.length,
    run: readFile,
  };
}

/** Damage anywhere, or in the header alone, which is short beside the blocks. */
function mutant(random: Random, good: Uint8Array): Uint8Array {
  let file = good;
  for (let i = random.below(4); i > 0; i--) {
    const length = random.once(2) ? HEADER_BYTES : file.length;
    file = join(mutateBytes(random, file.subarray(0, length)), file.subarray(length));
  }
  return file;
}

/** Of the header about; the exact number does not matter. */
const HEADER_BYTES = 192;

async function readFile(file: Uint8Array): Promise<void> {
  const weights = await openWeights(await checkpointFromSources("fuzz", [memorySource(file)]), {
    config: { _class_name: "FluxTransformer2DModel" },
    linearNames: (name) => name === NAME,
    onWarning: () => {},
  });
  weights.memory();
  for (const name of [NAME, "blocks.0.ff.bias"]) await readWeight(name, weights);
}
