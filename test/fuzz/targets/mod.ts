/** All fuzzers. */

import type { FuzzTarget } from "../target.ts";
import { checkpointTargets } from "./checkpoints.ts";
import { CONFIG_TARGET, PIPELINE_CONFIG_TARGET } from "./configs.ts";
import { GGUF_TARGET } from "./gguf.ts";
import { ggufCheckpointTargets } from "./gguf_checkpoints.ts";
import { modelConfigTargets, SCHEDULER_TARGET, SHARD_INDEX_TARGET } from "./model_configs.ts";
import { SAFETENSORS_TARGET } from "./safetensors.ts";
import { FLUX_MODEL_TARGET, T5_MODEL_TARGET } from "./single_file_models.ts";
import { FLUX_SINGLE_FILE_TARGET, T5_SINGLE_FILE_TARGET } from "./single_files.ts";

/** Every target; those of checkpoints follow the registry of methods. */
export async function fuzzTargets(): Promise<FuzzTarget[]> {
  return [
    SAFETENSORS_TARGET,
    GGUF_TARGET,
    CONFIG_TARGET,
    PIPELINE_CONFIG_TARGET,
    SHARD_INDEX_TARGET,
    SCHEDULER_TARGET,
    ...modelConfigTargets(),
    ...await checkpointTargets(),
    ...await ggufCheckpointTargets(),
    FLUX_SINGLE_FILE_TARGET,
    T5_SINGLE_FILE_TARGET,
    FLUX_MODEL_TARGET,
    T5_MODEL_TARGET,
  ] as FuzzTarget[];
}
