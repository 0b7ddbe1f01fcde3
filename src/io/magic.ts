/** What a file is by its first bytes, when it is not what it should be. */

import { HalftoneError } from "../errors.ts";

interface ForeignFormat {
  readonly name: string;
  /** Bytes at the start of the file; a string stands for its characters. */
  readonly starts: readonly (string | readonly number[])[];
  readonly remedy: string;
}

const SAVE_AS_SAFETENSORS =
  "Save the model as safetensors, for example with save_pretrained(folder, safe_serialization=True).";

const FOREIGN_FORMATS: readonly ForeignFormat[] = [
  {
    name: "a zip archive (such as PyTorch .bin, .pt and .ckpt files)",
    starts: ["PK\x03\x04", "PK\x05\x06"],
    remedy: `It may hold pickled code, which is never run here. ${SAVE_AS_SAFETENSORS}`,
  },
  {
    name: "a Python pickle",
    // Protocols 2 to 5 of the old torch.save and of pickle itself; then protocol 0 and 1 dictionaries.
    starts: [[0x80, 2], [0x80, 3], [0x80, 4], [0x80, 5], "(dp", "}q", "ccollections\n"],
    remedy: `A pickle is code, which is never run here. ${SAVE_AS_SAFETENSORS}`,
  },
  {
    name: "a gzip archive",
    starts: [[0x1f, 0x8b]],
    remedy: "Unpack it first.",
  },
  {
    name: "a bzip2, xz, zstd or 7z archive",
    starts: ["BZh", [0xfd, 0x37, 0x7a, 0x58, 0x5a], [0x28, 0xb5, 0x2f, 0xfd], "7z\xbc\xaf\x27\x1c"],
    remedy: "Unpack it first.",
  },
  {
    name: "a GGUF file",
    starts: ["GGUF"],
    remedy:
      "A GGUF file stands for itself: it is no shard, and no safetensors file by another name.",
  },
  {
    name: "an HDF5 file",
    starts: ["\x89HDF"],
    remedy: SAVE_AS_SAFETENSORS,
  },
  {
    name: "a NumPy array",
    starts: ["\x93NUMPY"],
    remedy: SAVE_AS_SAFETENSORS,
  },
  {
    name: "a Git LFS pointer, not the file itself",
    starts: ["version https://git-lfs"],
    remedy: "Fetch the file with `git lfs pull`, or download it again.",
  },
  {
    name: "a web page",
    starts: ["<!DOCTYPE", "<!doctype", "<html", "<HTML", "<?xml"],
    remedy: "The download brought an error page instead of the file; download it again.",
  },
];

/** How many bytes `refuseForeignFile` wants to see. */
export const MAGIC_LENGTH = 32;

/** Throws `unsupported_file` when the first bytes of a file show another known format. */
export function refuseForeignFile(start: Uint8Array, file: string | undefined): void {
  const format = FOREIGN_FORMATS.find((candidate) =>
    candidate.starts.some((magic) => startsWith(start, magic))
  );
  if (format === undefined) return;
  throw new HalftoneError("unsupported_file", "Cannot read the file as safetensors", {
    file,
    found: format.name,
    remedy: format.remedy,
  });
}

function startsWith(bytes: Uint8Array, magic: string | readonly number[]): boolean {
  const expected = typeof magic === "string"
    ? [...magic].map((character) => character.charCodeAt(0))
    : magic;
  return bytes.length >= expected.length && expected.every((byte, i) => bytes[i] === byte);
}
