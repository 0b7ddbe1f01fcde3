/** GGUFQuantizationConfig, with what Diffusers' lacks: the type to quantize to. */

import { HalftoneError } from "../errors.ts";
import { GGUF_MIXES, type GgufMix, isGgufMix } from "./gguf_mixes.ts";
import type { JsonValue } from "./python_json.ts";
import type { QuantizationConfig } from "./quantizer.ts";

/** What a GGUFQuantizationConfig may be given; the names are Diffusers' in camelCase. */
export interface GGUFQuantizationOptions {
  /** Recorded only; halftone multiplies in float32 always, as ggml dequantizes. Default float32. */
  readonly computeDtype?: "float32" | "float16" | "bfloat16" | null;
  /** What to quantize dense weights to, such as "Q4_K" or "Q4_K_M"; not needed to read a file. */
  readonly quantType?: GgufMix | null;
}

/** How GGUF weights are read, and what dense ones become. */
export class GGUFQuantizationConfig implements QuantizationConfig {
  /** The method as config.json names it. */
  readonly quantMethod = "gguf";
  /** The key of the method in Diffusers' mapping. */
  readonly backend = "gguf";
  /** See `GGUFQuantizationOptions.computeDtype`. */
  readonly computeDtype: "float32" | "float16" | "bfloat16";
  /** See `GGUFQuantizationOptions.quantType`; null when files are only read. */
  readonly quantType: GgufMix | null;

  /** Throws `quantization_config` for a type that is not known. */
  constructor(options: GGUFQuantizationOptions = {}) {
    this.computeDtype = options.computeDtype ?? "float32";
    this.quantType = options.quantType ?? null;
    if (!["float32", "float16", "bfloat16"].includes(this.computeDtype)) {
      throw wrong("compute_dtype", this.computeDtype, "float32, float16, bfloat16");
    }
    if (this.quantType !== null && !isGgufMix(this.quantType)) {
      throw wrong("quant_type", this.quantType, Object.keys(GGUF_MIXES).join(", "));
    }
  }

  /** From the dictionary of a config.json, or the options in camelCase. Throws `quantization_config`. */
  static fromDict(dict: Readonly<Record<string, unknown>>): GGUFQuantizationConfig {
    return new GGUFQuantizationConfig({
      computeDtype: dict.compute_dtype ?? dict.computeDtype,
      quantType: dict.quant_type ?? dict.quantType,
    } as GGUFQuantizationOptions);
  }

  /** The dictionary in snake_case. */
  toDict(): { readonly [key: string]: JsonValue } {
    return {
      quant_method: this.quantMethod,
      compute_dtype: this.computeDtype,
      ...this.quantType === null ? {} : { quant_type: this.quantType },
    };
  }

  /** The same, for JSON.stringify. */
  toJSON(): unknown {
    return this.toDict();
  }
}

function wrong(field: string, found: unknown, expected: string): HalftoneError {
  return new HalftoneError("quantization_config", "Cannot use a GGUF config", {
    field,
    found,
    expected,
  });
}
