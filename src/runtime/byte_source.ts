/** Byte ranges of a file, wherever it lies, so that a checkpoint is never held as a whole. */

import { HalftoneError } from "../errors.ts";

/** A file of known size that is read by ranges. */
export interface ByteSource {
  /** What to call it in errors: a path or a URL. */
  readonly path: string;
  /** Bytes in total. */
  readonly size: number;
  /**
   * Reads exactly `length` bytes at `offset`, into the start of `into` when given (it may lie in a
   * SharedArrayBuffer). Throws `missing_file` when the range is not all there.
   */
  read(offset: number, length: number, into?: Uint8Array): Promise<Uint8Array>;
  /** Closes the file; reads fail afterwards. */
  close(): Promise<void>;
}

/** A source over bytes in memory; reads are copies. */
export function memorySource(bytes: Uint8Array, path = "memory"): ByteSource {
  return {
    path,
    size: bytes.byteLength,
    // deno-lint-ignore require-await -- errors must arrive as rejections
    read: async (offset, length, into) => {
      checkRange(path, bytes.byteLength, offset, length);
      const target = into?.subarray(0, length) ?? new Uint8Array(length);
      target.set(bytes.subarray(offset, offset + length));
      return target;
    },
    close: () => Promise.resolve(),
  };
}

/** Throws `missing_file` when a range leaves the file. */
export function checkRange(path: string, size: number, offset: number, length: number): void {
  if (offset >= 0 && length >= 0 && offset + length <= size) return;
  throw new HalftoneError("missing_file", "Cannot read past the end of the file", {
    file: path,
    found: `${size} bytes`,
    expected: `${offset + length} bytes`,
    remedy: "The file was cut off or changed while it was open; fetch it again.",
  });
}
