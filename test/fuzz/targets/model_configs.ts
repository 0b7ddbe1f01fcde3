/** config.json of models and schedulers, and the indexes of sharded checkpoints, almost right. */

import { modelOfConfig } from "../../../cli/model_classes.ts";
import type { Config } from "../../../src/io/config.ts";
import { parseShardIndex } from "../../../src/io/shard_index.ts";
import { AutoencoderKL } from "../../../src/models/autoencoder_kl.ts";
import { CLIPTextModel } from "../../../src/models/clip.ts";
import { FluxTransformer2DModel } from "../../../src/models/flux_transformer.ts";
import { T5EncoderModel } from "../../../src/models/t5.ts";
import { Graph, type WeightCatalog } from "../../../src/ops/graph.ts";
import { FlowMatchEulerDiscreteScheduler } from "../../../src/schedulers/flow_match_euler.ts";
import { denseCatalog, GOLDENS, loadJson, loadTensors } from "../../models/run_model.ts";
import { copyJson, mutateJson, mutateText } from "../mutate.ts";
import type { Random } from "../random.ts";
import type { FuzzTarget } from "../target.ts";

const FOLDER = `${GOLDENS}pipelines/dev`;
const WEIGHTS = {
  transformer: "diffusion_pytorch_model",
  vae: "diffusion_pytorch_model",
  text_encoder: "model",
  text_encoder_2: "model",
} as const;

/** One target per component of a small pipeline: its forward is captured over its weights. */
export function modelConfigTargets(): FuzzTarget<Config>[] {
  return Object.entries(WEIGHTS).map(([component, file]) => {
    const path = `${FOLDER}/${component}`;
    const catalog = denseCatalog(loadTensors(`${path}/${file}.safetensors`));
    return configTarget(component, loadJson(`${path}/config.json`), (config) => {
      capture(modelOfConfig(config, "config.json"), catalog);
    });
  });
}

/** Makes a scheduler and the timesteps of a short run. */
export const SCHEDULER_TARGET: FuzzTarget<Config> = configTarget(
  "scheduler",
  loadJson(`${FOLDER}/scheduler/scheduler_config.json`),
  (config) => {
    FlowMatchEulerDiscreteScheduler.fromConfig(config)
      .setTimesteps({ numInferenceSteps: 3, mu: 0.5 });
  },
);

function configTarget(
  name: string,
  good: Config,
  run: (config: Config) => void,
): FuzzTarget<Config> {
  const make = (random: Random): Config => {
    const config = copyJson(good);
    for (let i = random.below(4); i > 0; i--) mutateJson(random, config);
    return config;
  };
  return { name: `config of ${name}`, make, size: (config) => JSON.stringify(config).length, run };
}

function capture(model: ReturnType<typeof modelOfConfig>, catalog: WeightCatalog): void {
  const graph = () => new Graph("fuzz", catalog);
  if (model instanceof FluxTransformer2DModel) {
    model.captureModulation(graph(), { steps: 2 });
    model.captureDenoise(graph(), { height: 2, width: 3, textTokens: 4 });
  } else if (model instanceof AutoencoderKL) {
    model.captureDecode(graph(), { height: 4, width: 2 });
  } else if (model instanceof T5EncoderModel || model instanceof CLIPTextModel) {
    model.captureEncode(graph(), { tokens: 5 });
  }
}

/** The text of an index. */
export const SHARD_INDEX_TARGET: FuzzTarget<string> = {
  name: "shard_index",
  make: (random) => {
    const index = copyJson(INDEX);
    for (let i = random.below(3); i > 0; i--) mutateJson(random, index);
    const text = JSON.stringify(index);
    return random.once(2) ? text : mutateText(random, text);
  },
  size: (text) => text.length,
  run: (text) => parseShardIndex(text),
};

const INDEX = {
  metadata: { total_size: 16 },
  weight_map: {
    "a.weight": "model-00001-of-00002.safetensors",
    "b.weight": "model-00002-of-00002.safetensors",
  },
};
