/** Reads the fields of a GGUF header one after another; never past the end of the file. */

import { type ErrorDetail, HalftoneError } from "../errors.ts";

/** Thrown, and caught by the parser, when the header goes on past the bytes at hand. */
const NEEDS_MORE: unique symbol = Symbol("needs more bytes");

/** A position in the first bytes of a file. */
export class GgufCursor {
  /** How far it has read. */
  position = 0;
  readonly #bytes: Uint8Array;
  readonly #view: DataView;

  /** `end` is where the header must have ended: the end of the file, or the limit of headers. */
  constructor(bytes: Uint8Array, readonly end: number, readonly file?: string) {
    this.#bytes = bytes;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  /** Bytes of the file that are left. */
  get remaining(): number {
    return this.end - this.position;
  }

  /** Whether an error only says that more bytes are needed. */
  isWaiting(error: unknown): boolean {
    return error === NEEDS_MORE;
  }

  /** Moves on by `count` bytes and gives the position before; throws when the file ends earlier. */
  take(count: number, field: string): number {
    if (count > this.remaining) {
      const found = `${this.remaining} bytes`;
      throw this.invalid("the file ends within its header", field, found, `${count} bytes`);
    }
    const start = this.position;
    if (start + count > this.#bytes.length) throw NEEDS_MORE;
    this.position += count;
    return start;
  }

  /** The field types of metadata, by how DataView calls them. */
  number(
    kind: "Uint8" | "Int8" | "Uint16" | "Int16" | "Uint32" | "Int32" | "Float32" | "Float64",
    bytes: number,
    field: string,
  ): number {
    return this.#view[`get${kind}`](this.take(bytes, field), true);
  }

  /** A 64-bit integer. */
  bigint(kind: "BigUint64" | "BigInt64", field: string): bigint {
    return this.#view[`get${kind}`](this.take(8, field), true);
  }

  u32(field: string): number {
    return this.number("Uint32", 4, field);
  }

  /** A 64-bit size; throws when no file could have it. */
  u64(field: string): number {
    const value = this.bigint("BigUint64", field);
    if (value <= BigInt(Number.MAX_SAFE_INTEGER)) return Number(value);
    throw this.invalid("a number is larger than any file", field, String(value));
  }

  /** A string of at most `limit` bytes of UTF-8. */
  string(field: string, limit: number): string {
    const length = this.#stringLength(field, limit);
    const start = this.take(length, field);
    try {
      const text = this.#bytes.subarray(start, start + length);
      return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(text);
    } catch {
      throw this.invalid("a string is not UTF-8", field, `${length} bytes`);
    }
  }

  /** Passes over a string. */
  skipString(field: string, limit: number): void {
    this.take(this.#stringLength(field, limit), field);
  }

  /** The error of a field, `invalid_gguf`. */
  invalid(
    problem: string,
    field: string,
    found?: unknown,
    expected?: string,
    tensor?: string,
  ): HalftoneError {
    return invalidGguf(problem, { file: this.file, field, found, expected, tensor });
  }

  #stringLength(field: string, limit: number): number {
    const length = this.u64(field);
    const most = Math.min(limit, this.remaining);
    if (length <= most) return length;
    throw this.invalid("a string is too long", field, length, `at most ${most} bytes`);
  }
}

/** The error of a file that breaks the format. */
export function invalidGguf(problem: string, detail: ErrorDetail): HalftoneError {
  return new HalftoneError("invalid_gguf", `Cannot parse GGUF: ${problem}`, {
    ...detail,
    remedy: "The file is damaged or incomplete; fetch it again.",
  });
}
