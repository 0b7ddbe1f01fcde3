/** `halftone quantize SRC FILE.gguf`: one component in one file, as other tools read it. */

import { HalftoneError } from "../src/errors.ts";
import { openCheckpoint } from "../src/io/checkpoint.ts";
import { isModelFolder } from "../src/io/model_folder.ts";
import { type GgufFileType, quantizeToGguf } from "../src/io/quantize_gguf.ts";
import { ggufFileOf } from "../src/models/gguf_file.ts";
import { parseQuantizeFlag } from "../src/quantization/formats.ts";
import { GGUFQuantizationConfig } from "../src/quantization/gguf_config.ts";
import { joinPath } from "../src/runtime/files.ts";
import { sizeLine } from "./convert_model.ts";
import type { Progress } from "./progress.ts";

/** What is quantized of a model folder when the flag names no component. */
const DEFAULT_COMPONENT = "transformer";

/**
 * Quantizes the component that the flag names of a model folder, a component's folder, or a
 * safetensors file; returns a line with the sizes.
 */
export async function quantizeGgufFile(
  source: string,
  destination: string,
  flags: readonly string[],
  progress: Progress,
  signal: AbortSignal,
): Promise<string> {
  const { component, quantType } = onlyFlag(flags);
  const path = await isModelFolder(source)
    ? joinPath(source, component ?? DEFAULT_COMPONENT)
    : source;
  const opened = await openCheckpoint(path, { variantFallback: true });
  try {
    const { architecture, checkpoint } = ggufFileOf(opened);
    await quantizeToGguf(checkpoint, destination, {
      quantType,
      architecture,
      signal,
      onProgress: (done, total) => progress.show(`quantize ${path}`, done, total, "tensors"),
    });
  } finally {
    await opened.close();
  }
  return await sizeLine(destination, path, destination);
}

/** The one flag there may be; F32, F16 and BF16 are types of files, not ways to quantize. */
function onlyFlag(flags: readonly string[]): { component?: string; quantType: GgufFileType } {
  const plain = /^(?:([^=]+)=)?gguf:(F32|F16|BF16)$/.exec(flags[0]);
  if (plain !== null && flags.length === 1) {
    return { component: plain[1], quantType: plain[2] as GgufFileType };
  }
  const parsed = flags.map(parseQuantizeFlag);
  const [{ component, config }] = parsed;
  if (parsed.length === 1 && config instanceof GGUFQuantizationConfig && config.quantType) {
    return { component, quantType: config.quantType };
  }
  throw new HalftoneError("invalid_argument", "Cannot write this as a .gguf file", {
    field: "--quantize",
    found: flags.join(" "),
    expected: "one gguf:FORMAT, such as gguf:Q4_K",
  });
}
