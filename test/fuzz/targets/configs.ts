/** Config dictionaries that are almost right, alone and in a PipelineQuantizationConfig. */

import { configFromDict, createQuantizer, METHODS } from "../../../src/quantization/auto.ts";
import { quantizeFormats } from "../../../src/quantization/formats.ts";
import { PipelineQuantizationConfig } from "../../../src/quantization/pipeline_config.ts";
import type { PipelineQuantizationOptions } from "../../../src/quantization/pipeline_config.ts";
import { copyJson, mutateJson } from "../mutate.ts";
import type { Random } from "../random.ts";
import type { FuzzTarget } from "../target.ts";

type Dict = Record<string, unknown>;

const NAMES = ["transformer_blocks.0.attn.to_q", "proj_out", "", "a", "toString"];

/** The dictionary of every format, as JSON would give it. */
const DICTS: readonly Dict[] = quantizeFormats().map(({ config }) =>
  JSON.parse(JSON.stringify(config()))
);

/** What config.json may hold under quantization_config. */
export const CONFIG_TARGET: FuzzTarget<Dict> = {
  name: "config",
  make: (random) => mutated(random, random.pick(DICTS)),
  size: (dict) => JSON.stringify(dict).length,
  run: (dict) => {
    const config = configFromDict(dict);
    JSON.stringify(config);
    config.toDict();
    const quantizer = createQuantizer(config, { library: "diffusers", keepInFloat32: ["wo"] });
    for (const name of NAMES) quantizer.skips(name);
    quantizer.describe([64, 256], "bfloat16");
    quantizer.describe([64]);
  },
};

/** What a caller may pass for a whole pipeline. */
export const PIPELINE_CONFIG_TARGET: FuzzTarget<Dict> = {
  name: "pipeline_config",
  make: (random) => mutated(random, options(random)),
  size: (dict) => JSON.stringify(dict).length,
  run: (given) => {
    const { quantMapping, ...rest } = given;
    const mapping = isDict(quantMapping) && Object.entries(quantMapping)
      .map(([name, value]) => [name, isDict(value) ? configFromDict(value) : value]);
    const config = new PipelineQuantizationConfig(
      {
        ...rest,
        quantMapping: mapping ? Object.fromEntries(mapping) : quantMapping,
      } as PipelineQuantizationOptions,
    );
    for (const name of ["transformer", "text_encoder_2", "toString"]) config.resolve(name);
    config.unknownComponents(["transformer"]);
  },
};

function options(random: Random): Dict {
  const dict = random.pick(DICTS);
  if (random.once(2)) return { quantMapping: { transformer: dict, text_encoder_2: dict } };
  return {
    quantBackend: random.pick(METHODS).backends[0],
    quantKwargs: dict,
    componentsToQuantize: random.once(2) ? ["transformer"] : "transformer",
  };
}

function mutated(random: Random, original: Dict): Dict {
  const dict = copyJson(original);
  for (let i = random.below(4); i > 0; i--) mutateJson(random, dict);
  return dict;
}

function isDict(value: unknown): value is Dict {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
