/** BitsAndBytesConfig with the fields, defaults and checks of Diffusers' quantization_config.py. */

import { HalftoneError } from "../errors.ts";
import { STORAGE_DTYPES, type StorageDType } from "./bitsandbytes_4bit_tensors.ts";
import type { FourBitType } from "./bitsandbytes_tables.ts";
import { JsonNumber, type JsonValue } from "./python_json.ts";
import type { QuantizationConfig } from "./quantizer.ts";

/** Types bnb_4bit_compute_dtype may name. */
export type ComputeDType = "float32" | "float16" | "bfloat16";

/** What a BitsAndBytesConfig may be given; the names are Diffusers' in camelCase. */
export interface BitsAndBytesOptions {
  /** LLM.int8(). Default false. */
  readonly loadIn8bit?: boolean;
  /** NF4 or FP4. Default false. */
  readonly loadIn4bit?: boolean;
  /** Columns of activations with an entry this large are multiplied in float; 0 for none. Default 6. */
  readonly llmInt8Threshold?: number;
  /** Modules that stay dense, in either width. Default none. */
  readonly llmInt8SkipModules?: readonly string[] | null;
  /** Kept for checkpoints; there is no device map here. Default false. */
  readonly llmInt8EnableFp32CpuOffload?: boolean;
  /** Not supported when true: it keeps 16-bit weights for training. Default false. */
  readonly llmInt8HasFp16Weight?: boolean;
  /** Recorded in checkpoints; halftone multiplies in float32 always. Default float32. */
  readonly bnb4bitComputeDtype?: ComputeDType | null;
  /** Default "fp4", as in Diffusers. */
  readonly bnb4bitQuantType?: FourBitType;
  /** Quantizes the absmax values again. Default false. */
  readonly bnb4bitUseDoubleQuant?: boolean;
  /** The type packed weights are stored as. Default uint8. */
  readonly bnb4bitQuantStorage?: StorageDType | null;
}

/** Which field of a dictionary is which option. */
const FIELDS: Readonly<Record<string, keyof BitsAndBytesOptions>> = {
  load_in_8bit: "loadIn8bit",
  load_in_4bit: "loadIn4bit",
  llm_int8_threshold: "llmInt8Threshold",
  llm_int8_skip_modules: "llmInt8SkipModules",
  llm_int8_enable_fp32_cpu_offload: "llmInt8EnableFp32CpuOffload",
  llm_int8_has_fp16_weight: "llmInt8HasFp16Weight",
  bnb_4bit_compute_dtype: "bnb4bitComputeDtype",
  bnb_4bit_quant_type: "bnb4bitQuantType",
  bnb_4bit_use_double_quant: "bnb4bitUseDoubleQuant",
  bnb_4bit_quant_storage: "bnb4bitQuantStorage",
};

const COMPUTE_DTYPES = ["float32", "float16", "bfloat16"] as const;

/** How to quantize with bitsandbytes. */
export class BitsAndBytesConfig implements QuantizationConfig {
  /** The method as config.json names it. */
  readonly quantMethod = "bitsandbytes";
  /** See `BitsAndBytesOptions.loadIn8bit`. */
  readonly loadIn8bit: boolean;
  /** See `BitsAndBytesOptions.loadIn4bit`. */
  readonly loadIn4bit: boolean;
  /** See `BitsAndBytesOptions.llmInt8Threshold`. */
  readonly llmInt8Threshold: number;
  /** See `BitsAndBytesOptions.llmInt8SkipModules`. */
  readonly llmInt8SkipModules: readonly string[] | null;
  /** See `BitsAndBytesOptions.llmInt8EnableFp32CpuOffload`. */
  readonly llmInt8EnableFp32CpuOffload: boolean;
  /** See `BitsAndBytesOptions.llmInt8HasFp16Weight`. */
  readonly llmInt8HasFp16Weight: boolean;
  /** See `BitsAndBytesOptions.bnb4bitComputeDtype`. */
  readonly bnb4bitComputeDtype: ComputeDType;
  /** See `BitsAndBytesOptions.bnb4bitQuantType`. */
  readonly bnb4bitQuantType: FourBitType;
  /** See `BitsAndBytesOptions.bnb4bitUseDoubleQuant`. */
  readonly bnb4bitUseDoubleQuant: boolean;
  /** See `BitsAndBytesOptions.bnb4bitQuantStorage`. */
  readonly bnb4bitQuantStorage: StorageDType;

  /** Throws `quantization_config` for a value that Diffusers refuses. */
  constructor(options: BitsAndBytesOptions = {}) {
    const check = new OptionCheck(options);
    this.loadIn8bit = check.boolean("loadIn8bit");
    this.loadIn4bit = check.boolean("loadIn4bit");
    this.llmInt8Threshold = check.threshold("llmInt8Threshold");
    this.llmInt8SkipModules = check.names("llmInt8SkipModules");
    this.llmInt8EnableFp32CpuOffload = check.boolean("llmInt8EnableFp32CpuOffload");
    this.llmInt8HasFp16Weight = check.boolean("llmInt8HasFp16Weight");
    this.bnb4bitComputeDtype = check.oneOf("bnb4bitComputeDtype", COMPUTE_DTYPES, "float32");
    this.bnb4bitQuantType = check.oneOf("bnb4bitQuantType", ["fp4", "nf4"], "fp4");
    this.bnb4bitUseDoubleQuant = check.boolean("bnb4bitUseDoubleQuant");
    this.bnb4bitQuantStorage = check.oneOf("bnb4bitQuantStorage", STORAGE_DTYPES, "uint8");
    if (this.loadIn4bit && this.loadIn8bit) throw check.bothWidths();
  }

  /**
   * From config.json's dictionary (or the options in camelCase); other keys are ignored, as Diffusers
   * ignores them. Throws `quantization_config`.
   */
  static fromDict(dict: Readonly<Record<string, unknown>>): BitsAndBytesConfig {
    const options: Record<string, unknown> = {};
    for (const [field, option] of Object.entries(FIELDS)) {
      const value = dict[field] ?? dict[option];
      if (value !== undefined) options[option] = value instanceof JsonNumber ? +value : value;
    }
    return new BitsAndBytesConfig(options);
  }

  /** The key of the method in Diffusers' mapping. */
  get backend(): "bitsandbytes_8bit" | "bitsandbytes_4bit" {
    return this.loadIn8bit ? "bitsandbytes_8bit" : "bitsandbytes_4bit";
  }

  /** What it quantizes to; null when neither width was asked for. */
  quantizationMethod(): "llm_int8" | FourBitType | null {
    if (this.loadIn8bit) return "llm_int8";
    return this.loadIn4bit ? this.bnb4bitQuantType : null;
  }

  /** The dictionary, key by key as Diffusers' to_dict. */
  toDict(): { readonly [key: string]: JsonValue } {
    return {
      quant_method: this.quantMethod,
      _load_in_8bit: this.loadIn8bit,
      _load_in_4bit: this.loadIn4bit,
      llm_int8_threshold: JsonNumber.float(this.llmInt8Threshold),
      llm_int8_skip_modules: this.llmInt8SkipModules,
      llm_int8_enable_fp32_cpu_offload: this.llmInt8EnableFp32CpuOffload,
      llm_int8_has_fp16_weight: this.llmInt8HasFp16Weight,
      bnb_4bit_quant_type: this.bnb4bitQuantType,
      bnb_4bit_use_double_quant: this.bnb4bitUseDoubleQuant,
      bnb_4bit_compute_dtype: this.bnb4bitComputeDtype,
      bnb_4bit_quant_storage: this.bnb4bitQuantStorage,
      load_in_4bit: this.loadIn4bit,
      load_in_8bit: this.loadIn8bit,
    };
  }

  /** The same, for JSON.stringify. */
  toJSON(): unknown {
    return this.toDict();
  }
}

class OptionCheck {
  readonly #options: Readonly<Record<string, unknown>>;

  constructor(options: BitsAndBytesOptions) {
    this.#options = options as Readonly<Record<string, unknown>>;
  }

  boolean(option: keyof BitsAndBytesOptions): boolean {
    const value = this.#options[option] ?? false;
    return typeof value === "boolean" ? value : this.#fail(option, "true or false");
  }

  threshold(option: keyof BitsAndBytesOptions): number {
    const value = this.#options[option] ?? 6;
    const valid = typeof value === "number" && Number.isFinite(value) && value >= 0;
    return valid ? value : this.#fail(option, "a number of at least 0");
  }

  names(option: keyof BitsAndBytesOptions): readonly string[] | null {
    const value = this.#options[option] ?? null;
    if (value === null) return null;
    const valid = Array.isArray(value) && value.every((name) => typeof name === "string");
    return valid ? [...value] : this.#fail(option, "a list of module names");
  }

  oneOf<T extends string>(option: keyof BitsAndBytesOptions, allowed: readonly T[], usual: T): T {
    const value = this.#options[option] ?? usual;
    const match = allowed.find((name) => name === value);
    return match ?? this.#fail(option, `one of ${allowed.join(", ")}`);
  }

  bothWidths(): HalftoneError {
    return new HalftoneError("quantization_config", "Cannot load in 4 and in 8 bits at once", {
      field: "load_in_4bit, load_in_8bit",
      found: "both true",
      expected: "one of them",
    });
  }

  #fail(option: keyof BitsAndBytesOptions, expected: string): never {
    const field = Object.keys(FIELDS).find((key) => FIELDS[key] === option);
    throw new HalftoneError("quantization_config", "Cannot use a BitsAndBytesConfig", {
      field,
      found: this.#options[option],
      expected,
    });
  }
}
