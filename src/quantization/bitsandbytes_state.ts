/**
 * The quant_state of a bitsandbytes 4-bit weight: JSON, as Python's json.dumps writes it, in a uint8
 * tensor beside the weight (QuantState.as_dict of bitsandbytes/functional.py).
 */

import { HalftoneError } from "../errors.ts";
import type { DType } from "../tensor/dtype.ts";
import { HostTensor } from "../tensor/host_tensor.ts";
import { elementCount, type Shape } from "../tensor/shape.ts";
import { NESTED_BLOCK_SIZE } from "./bitsandbytes_nested.ts";
import type { FourBitType } from "./bitsandbytes_tables.ts";
import { JsonNumber, type JsonValue, pythonJson } from "./python_json.ts";

/** The types a dense weight may have had. */
export type DenseDType = Extract<DType, "float32" | "float16" | "bfloat16">;

/** What the JSON says. */
export interface QuantState {
  readonly quantType: FourBitType;
  readonly blockSize: number;
  readonly dtype: DenseDType;
  readonly shape: readonly [rows: number, columns: number];
  /** Present with double quantization. */
  readonly nested: { readonly blockSize: number; readonly offset: number } | null;
}

/** The state as the library writes it, bytes [length]. */
export function writeQuantState(state: QuantState): HostTensor {
  const fields: Record<string, JsonValue> = {
    quant_type: state.quantType,
    blocksize: state.blockSize,
    dtype: state.dtype,
    shape: state.shape,
  };
  if (state.nested) {
    fields.nested_blocksize = state.nested.blockSize;
    fields.nested_dtype = "float32";
    fields.nested_offset = JsonNumber.float(state.nested.offset);
  }
  const bytes = new TextEncoder().encode(pythonJson(fields));
  return new HostTensor("uint8", [bytes.length], bytes);
}

/** Parses and checks a state; `name` is its tensor, for messages. Throws `quantization_config`. */
export function readQuantState(name: string, tensor: HostTensor): QuantState {
  const fields = parseFields(name, tensor);
  const check = new FieldCheck(name, fields);
  const nested = "nested_offset" in fields || "nested_blocksize" in fields;
  if (nested) check.oneOf("nested_dtype", ["float32"]);
  return {
    quantType: check.oneOf("quant_type", ["nf4", "fp4"]),
    blockSize: check.blockSize("blocksize"),
    dtype: check.oneOf("dtype", ["float32", "float16", "bfloat16"]),
    shape: check.shape("shape"),
    nested: nested
      ? { blockSize: check.nestedBlockSize(), offset: check.number("nested_offset") }
      : null,
  };
}

function parseFields(name: string, tensor: HostTensor): Record<string, unknown> {
  let parsed: unknown;
  try {
    parsed = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(tensor.bytes.slice()));
  } catch (cause) {
    throw new HalftoneError("quantization_config", "Cannot parse a quant_state", {
      tensor: name,
      expected: "UTF-8 JSON",
    }, cause);
  }
  if (typeof parsed === "object" && parsed !== null && !Array.isArray(parsed)) {
    return parsed as Record<string, unknown>;
  }
  throw new HalftoneError("quantization_config", "Cannot parse a quant_state", {
    tensor: name,
    found: parsed,
    expected: "a JSON object",
  });
}

class FieldCheck {
  readonly #tensor: string;
  readonly #fields: Record<string, unknown>;

  constructor(tensor: string, fields: Record<string, unknown>) {
    this.#tensor = tensor;
    this.#fields = fields;
  }

  oneOf<T extends string>(field: string, allowed: readonly T[]): T {
    const match = allowed.find((value) => value === this.#fields[field]);
    return match ?? this.#fail(field, `one of ${allowed.join(", ")}`);
  }

  number(field: string): number {
    const value = this.#fields[field];
    return typeof value === "number" && Number.isFinite(value)
      ? value
      : this.#fail(field, "a finite number");
  }

  blockSize(field: string): number {
    const value = this.number(field);
    return isBlockSize(value) ? value : this.#fail(field, "a power of two from 2 to 65536");
  }

  nestedBlockSize(): number {
    const value = this.number("nested_blocksize");
    return value === NESTED_BLOCK_SIZE
      ? value
      : this.#fail("nested_blocksize", String(NESTED_BLOCK_SIZE));
  }

  shape(field: string): readonly [number, number] {
    const value = this.#fields[field];
    return isMatrixShape(value) ? [value[0], value[1]] : this.#fail(field, "[rows, columns]");
  }

  #fail(field: string, expected: string): never {
    throw new HalftoneError("quantization_config", "Cannot use a quant_state", {
      tensor: this.#tensor,
      field,
      found: this.#fields[field] ?? "nothing",
      expected,
    });
  }
}

/** Whether blocks may have this many weights. */
export function isBlockSize(value: number): boolean {
  return Number.isInteger(value) && value >= 2 && value <= 65536 && (value & (value - 1)) === 0;
}

function isMatrixShape(value: unknown): value is Shape {
  return Array.isArray(value) && value.length === 2 &&
    value.every((dimension) => Number.isSafeInteger(dimension) && dimension > 0) &&
    Number.isSafeInteger(elementCount(value));
}
