/** All fuzzers. */

import type { FuzzTarget } from "../target.ts";
import { checkpointTargets } from "./checkpoints.ts";
import { CONFIG_TARGET, PIPELINE_CONFIG_TARGET } from "./configs.ts";
import { GGUF_TARGET } from "./gguf.ts";
import { ggufCheckpointTargets } from "./gguf_checkpoints.ts";
import { SAFETENSORS_TARGET } from "./safetensors.ts";

/** Every target; those of checkpoints follow the registry of methods. */
export async function fuzzTargets(): Promise<FuzzTarget[]> {
  return [
    SAFETENSORS_TARGET,
    GGUF_TARGET,
    CONFIG_TARGET,
    PIPELINE_CONFIG_TARGET,
    ...await checkpointTargets(),
    ...await ggufCheckpointTargets(),
  ] as FuzzTarget[];
}
