/** The index of a sharded checkpoint, `*.safetensors.index.json`: which tensor is in which file. */

import { HalftoneError } from "../errors.ts";
import { JsonFault, parseStrictJson } from "./json.ts";
import { SAFETENSORS_LIMITS } from "./safetensors.ts";

/** What an index may claim. */
export const INDEX_LIMITS = { bytes: 16 * 2 ** 20, shards: 256 } as const;

/** A checked index. */
export interface ShardIndex {
  /** Tensor name to shard file name. */
  readonly weightMap: ReadonlyMap<string, string>;
  /** The shards, sorted. */
  readonly shards: readonly string[];
}

/**
 * Parses an index. Throws `invalid_safetensors` when it is malformed, `unsafe_path` for a shard that
 * is not a plain file name, `unsupported_file` for shards that are no safetensors.
 */
export function parseShardIndex(text: string, file?: string): ShardIndex {
  const weightMap = readWeightMap(text, file);
  const shards = [...new Set(weightMap.values())].sort();
  if (shards.length > INDEX_LIMITS.shards) {
    throw invalid(
      "there are too many shards",
      shards.length,
      `at most ${INDEX_LIMITS.shards}`,
      file,
    );
  }
  for (const shard of shards) checkShardName(shard, file);
  return { weightMap, shards };
}

function readWeightMap(text: string, file?: string): Map<string, string> {
  const index = parseJson(text, file) as { weight_map?: unknown } | null;
  const map = index?.weight_map;
  if (typeof map !== "object" || map === null || Array.isArray(map)) {
    throw invalid("it has no weight_map", typeof map, "an object", file);
  }
  const pairs = Object.entries(map);
  const expected = `at most ${SAFETENSORS_LIMITS.tensors} names of files`;
  if (pairs.length > SAFETENSORS_LIMITS.tensors) {
    throw invalid("there are too many tensors", pairs.length, expected, file);
  }
  const wrong = pairs.find(([, shard]) => typeof shard !== "string");
  if (wrong !== undefined) throw invalid("a shard is no file name", wrong[1], expected, file);
  return new Map(pairs as [string, string][]);
}

function parseJson(text: string, file?: string): unknown {
  try {
    return parseStrictJson(text, { maxDepth: 8 });
  } catch (error) {
    if (error instanceof JsonFault) {
      throw invalid("it is not strict JSON", error.message, undefined, file);
    }
    throw error;
  }
}

function checkShardName(name: string, file?: string): void {
  // Separators of every system, drive letters and streams, control characters, hidden files.
  // deno-lint-ignore no-control-regex -- they are what is looked for
  const plain = /^[^./\\:\x00-\x1f][^/\\:\x00-\x1f]*$/.test(name) && name.length <= 255;
  if (!plain) {
    throw new HalftoneError("unsafe_path", "Cannot follow a shard out of the model folder", {
      file,
      field: "weight_map",
      found: name,
      expected: "a plain file name",
      remedy: "The index is damaged or malicious; do not use this model.",
    });
  }
  if (!name.endsWith(".safetensors")) {
    throw new HalftoneError("unsupported_file", "Cannot read a shard that is not safetensors", {
      file,
      field: "weight_map",
      found: name,
      expected: "a .safetensors file",
      remedy: "Save the model as safetensors.",
    });
  }
}

function invalid(problem: string, found: unknown, expected?: string, file?: string): HalftoneError {
  return new HalftoneError("invalid_safetensors", `Cannot parse the shard index: ${problem}`, {
    file,
    field: "weight_map",
    found,
    expected,
    remedy: "Fetch the index again.",
  });
}
