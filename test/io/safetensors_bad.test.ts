import assert from "node:assert/strict";
import { test } from "node:test";
import type { ErrorCode } from "../../src/errors.ts";
import { parseSafetensors, SAFETENSORS_LIMITS } from "../../src/io/safetensors.ts";
import { serializeSafetensors } from "../../src/io/safetensors_writer.ts";
import { HostTensor } from "../../src/tensor/host_tensor.ts";
import { joined, rejects, safetensorsFile } from "./support.ts";

type BadFile = [name: string, bytes: Uint8Array, message: RegExp, code?: ErrorCode];

const good = { dtype: "F32", shape: [2], data_offsets: [0, 8] };
const bytes = (...values: number[]) => Uint8Array.from(values);
const text = (value: string) => new TextEncoder().encode(value);
const latin = (value: string) => Uint8Array.from(value, (character) => character.charCodeAt(0));
/** A file with one tensor whose description differs from a good one. */
const changed = (change: Record<string, unknown>, data = 8) =>
  safetensorsFile({ a: { ...good, ...change } }, data);

const LENGTH_AND_START: BadFile[] = [
  ["an empty file", bytes(), /ends within the header length/],
  ["one byte", bytes(1), /ends within the header length/],
  ["seven bytes", new Uint8Array(7), /ends within the header length/],
  ["a header length of 0", safetensorsFile("", 8, 0), /too short/],
  ["a header length of 1", safetensorsFile("{", 8, 1), /too short/],
  ["only a header length", new Uint8Array(8), /too short/],
  ["a header longer than the file", safetensorsFile("{}", 0, 3), /longer than the file/],
  ["a header length of 16 MiB", safetensorsFile("{}", 0, 2 ** 24), /longer than the file/],
  ["a header length over the cap", safetensorsFile("{}", 0, 2 ** 24 + 1), /too long/],
  ["a header length of 2^32", safetensorsFile("{}", 0, 2 ** 32), /too long/],
  ["a header length of 2^53", safetensorsFile("{}", 0, 2 ** 53), /too long/],
  ["a header length of 2^63", safetensorsFile("{}", 0, 2n ** 63n), /too long/],
  ["a header length of 2^64 - 1", safetensorsFile("{}", 0, 2n ** 64n - 1n), /too long/],
  ["a header that starts with a space", safetensorsFile(" {}"), /does not start with \{/],
  ["a header that is a list", safetensorsFile("[]"), /does not start with \{/],
  ["a header that is a string", safetensorsFile('"{}"'), /does not start with \{/],
  ["a byte order mark", safetensorsFile("\ufeff{}"), /does not start with \{/],
];

const HEADER_TEXT: BadFile[] = [
  ["an open brace", safetensorsFile("{ "), /not strict JSON/],
  ["bytes after the object", safetensorsFile("{}x"), /not strict JSON/],
  ["two objects", safetensorsFile("{}{}"), /not strict JSON/],
  ["a zero byte after the object", safetensorsFile("{}\0"), /not strict JSON/],
  ["a trailing comma", safetensorsFile('{"__metadata__":{},}'), /not strict JSON/],
  ["a comment", safetensorsFile("{/**/}"), /not strict JSON/],
  ["single quotes", safetensorsFile("{'a':1}"), /not strict JSON/],
  ["NaN", safetensorsFile('{"a":NaN}'), /not strict JSON/],
  ["broken UTF-8", joined(bytes(0x7b, 0x22, 0xff, 0x22, 0x7d), bytes()), /not strict JSON.*UTF-8/],
  ["overlong UTF-8", joined(bytes(0x7b, 0x22, 0xc0, 0xaf, 0x22, 0x7d), bytes()), /UTF-8/],
  ["a surrogate in UTF-8", joined(bytes(0x7b, 0x22, 0xed, 0xa0, 0x80, 0x22), bytes()), /UTF-8/],
  ["an escaped half of a surrogate pair", safetensorsFile('{"\\ud800":{}}'), /not Unicode/],
  ["a line end in a name", safetensorsFile('{"a\nb":{}}'), /not strict JSON/],
  ["deep nesting", safetensorsFile(`{"a":${"[".repeat(9)}${"]".repeat(9)}}`), /nested deeper/],
  [
    "nesting of a million",
    safetensorsFile(`{"a":${"[".repeat(1e6)}${"]".repeat(1e6)}}`),
    /nested deeper/,
  ],
  ["an unclosed million", safetensorsFile(`{"a":${"[".repeat(1e6)}`), /nested deeper/],
];

const one = JSON.stringify(good);
const DUPLICATES: BadFile[] = [
  ["a tensor twice", safetensorsFile(`{"a":${one},"a":${one}}`, 8), /key "a" twice/],
  ["a tensor twice, once escaped", safetensorsFile(`{"a":${one},"\\u0061":${one}}`, 8), /twice/],
  [
    "the metadata twice",
    safetensorsFile('{"__metadata__":{},"__metadata__":{}}'),
    /"__metadata__" twice/,
  ],
  ["a metadata key twice", safetensorsFile('{"__metadata__":{"x":"1","x":"2"}}'), /"x" twice/],
  [
    "a field twice",
    safetensorsFile('{"a":{"dtype":"U8","dtype":"I8","shape":[0],"data_offsets":[0,0]}}'),
    /"dtype" twice/,
  ],
];

const METADATA: BadFile[] = [
  ["metadata that is a list", safetensorsFile({ __metadata__: [] }), /metadata is not text/],
  ["metadata that is null", safetensorsFile({ __metadata__: null }), /metadata is not text/],
  ["metadata that is a string", safetensorsFile({ __metadata__: "x" }), /metadata is not text/],
  ["metadata with a number", safetensorsFile({ __metadata__: { a: 1 } }), /metadata is not text/],
  ["metadata with an object", safetensorsFile({ __metadata__: { a: {} } }), /metadata is not text/],
  ["metadata with null", safetensorsFile({ __metadata__: { a: null } }), /metadata is not text/],
];

const DESCRIPTION: BadFile[] = [
  ["a tensor that is null", safetensorsFile({ a: null }), /not described/],
  ["a tensor that is a list", safetensorsFile({ a: [] }), /not described/],
  ["a tensor that is a number", safetensorsFile({ a: 1 }), /not described/],
  ["a tensor without fields", safetensorsFile({ a: {} }), /unknown type/],
  ["an unknown field", changed({ stride: [1] }), /unknown field/],
  ["an unknown dtype", changed({ dtype: "F12" }), /unknown type/],
  ["a dtype in lower case", changed({ dtype: "f32" }), /unknown type/],
  ["a dtype that is a number", changed({ dtype: 32 }), /unknown type/],
  ["a dtype that is null", changed({ dtype: null }), /unknown type/],
  ["a dtype named constructor", changed({ dtype: "constructor" }), /unknown type/],
  ["a dtype named __proto__", changed({ dtype: "__proto__" }), /unknown type/],
  ["a complex dtype", changed({ dtype: "C64", shape: [1] }), /of this type yet/, "unsupported"],
  ["a 4-bit dtype", changed({ dtype: "F4", shape: [16] }), /type/, "unsupported"],
  ["a dtype with a zero byte", changed({ dtype: "F32\0" }), /unknown type/],
  ["an empty dtype", changed({ dtype: "" }), /unknown type/],
  ["a dtype that is a list", changed({ dtype: ["F32"] }), /unknown type/],
  ["a tensor that is a string", safetensorsFile({ a: "F32" }), /not described/],
  ["a tensor that is true", safetensorsFile({ a: true }), /not described/],
  ["an MX scale dtype", changed({ dtype: "F8_E8M0", shape: [8] }), /type yet/, "unsupported"],
];

const SHAPE: BadFile[] = [
  ["no shape", changed({ shape: undefined }), /no valid shape/],
  ["a shape that is a number", changed({ shape: 2 }), /no valid shape/],
  ["a shape that is null", changed({ shape: null }), /no valid shape/],
  ["a shape with a string", changed({ shape: ["2"] }), /no valid shape/],
  ["a shape with null", changed({ shape: [null] }), /no valid shape/],
  ["a shape with a list", changed({ shape: [[2]] }), /no valid shape/],
  ["a negative dimension", changed({ shape: [-2] }), /no plain integer/],
  ["a minus zero", safetensorsFile('{"a":{"shape":[-0]}}'), /no plain integer/],
  ["a fraction", changed({ shape: [2.5] }), /no plain integer/],
  ["a shape with true", changed({ shape: [true] }), /no valid shape/],
  ["a shape that is an object", changed({ shape: { 0: 2 } }), /no valid shape/],
  ["a leading zero", safetensorsFile('{"a":{"shape":[02]}}'), /not strict JSON/],
  ["a plus sign", safetensorsFile('{"a":{"shape":[+2]}}'), /not strict JSON/],
  ["a hexadecimal dimension", safetensorsFile('{"a":{"shape":[0x2]}}'), /not strict JSON/],
  ["2.0 as a dimension", safetensorsFile('{"a":{"shape":[2.0]}}'), /no plain integer/],
  ["2e0 as a dimension", safetensorsFile('{"a":{"shape":[2e0]}}'), /no plain integer/],
  ["2^53 + 1 as a dimension", safetensorsFile('{"a":{"shape":[9007199254740993]}}'), /no plain/],
  ["1e400 as a dimension", safetensorsFile('{"a":{"shape":[1e400]}}'), /no plain integer/],
  ["a thousand digits", safetensorsFile(`{"a":{"shape":[${"9".repeat(1000)}]}}`), /no plain/],
  ["a dimension of 2^31 + 1", changed({ shape: [2 ** 31 + 1] }), /no valid shape/],
  ["nine dimensions", changed({ shape: [2, 1, 1, 1, 1, 1, 1, 1, 1] }), /no valid shape/],
  ["a product that overflows", changed({ shape: [2 ** 31, 2 ** 31] }), /size overflows/],
  [
    "a product that wraps around to the right size in 64 bits",
    changed({ shape: [2 ** 31, 2 ** 31, 4, 2] }),
    /size overflows/,
  ],
  [
    "an overflow hidden by a zero",
    changed({ shape: [2 ** 31, 2 ** 31, 0], data_offsets: [0, 0] }, 0),
    /size overflows/,
  ],
  ["a shape larger than the data", changed({ shape: [3] }), /wrong size/],
  ["a shape smaller than the data", changed({ shape: [1] }), /wrong size/],
  ["a scalar over two values", changed({ shape: [] }), /wrong size/],
  ["an empty tensor with data", changed({ shape: [0] }), /wrong size/],
  ["a wider dtype", changed({ dtype: "F64" }), /wrong size/],
];

const OFFSETS: BadFile[] = [
  ["no offsets", changed({ data_offsets: undefined }), /no valid data offsets/],
  ["offsets that are null", changed({ data_offsets: null }), /no valid data offsets/],
  ["one offset", changed({ data_offsets: [0] }), /no valid data offsets/],
  ["three offsets", changed({ data_offsets: [0, 4, 8] }), /no valid data offsets/],
  ["offsets as strings", changed({ data_offsets: ["0", "8"] }), /no valid data offsets/],
  ["offsets as an object", changed({ data_offsets: { 0: 0, 1: 8 } }), /no valid data offsets/],
  ["offsets the wrong way round", changed({ data_offsets: [8, 0] }), /no valid data offsets/],
  ["offsets with null", changed({ data_offsets: [null, 8] }), /no valid data offsets/],
  ["offsets with a fraction", changed({ data_offsets: [0, 7.5] }), /no plain integer/],
  ["a negative begin", changed({ data_offsets: [-8, 0] }), /no plain integer/],
  ["an end outside the file", changed({ data_offsets: [0, 16], shape: [4] }), /outside the file/],
  ["both offsets outside", changed({ data_offsets: [8, 16] }), /outside the file/],
  [
    "an end of 2^53 - 1",
    changed({ data_offsets: [0, Number.MAX_SAFE_INTEGER] }),
    /outside the file/,
  ],
  ["an end of 2^64 - 1", safetensorsFile('{"a":{"data_offsets":[0,18446744073709551615]}}'), /no/],
  ["data missing", changed({}, 0), /outside the file/],
  ["the last byte missing", changed({}, 7), /outside the file/],
  ["one byte too many", changed({}, 9), /bytes after the last tensor/],
  ["data without tensors", safetensorsFile({}, 1), /bytes after the last tensor/],
  ["a hole at the start", changed({ data_offsets: [4, 12] }, 12), /hole in the data/],
  [
    "a hole between two tensors",
    safetensorsFile({ a: good, b: { ...good, data_offsets: [12, 20] } }, 20),
    /hole in the data/,
  ],
  [
    "two tensors on the same bytes",
    safetensorsFile({ a: good, b: good }, 8),
    /two tensors overlap/,
  ],
  [
    "two tensors that overlap in part",
    safetensorsFile({ a: good, b: { ...good, data_offsets: [4, 12] } }, 12),
    /two tensors overlap/,
  ],
  [
    "an empty tensor inside another",
    safetensorsFile({ a: good, b: { dtype: "U8", shape: [0], data_offsets: [4, 4] } }, 8),
    /two tensors overlap/,
  ],
  [
    "an empty tensor behind a hole",
    safetensorsFile({ a: { dtype: "U8", shape: [0], data_offsets: [1, 1] } }, 1),
    /hole in the data/,
  ],
];

const FOREIGN: BadFile[] = [
  ["a zip archive", latin("PK\x03\x04" + "x".repeat(40)), /zip/, "unsupported_file"],
  ["an empty zip archive", latin("PK\x05\x06" + "\0".repeat(18)), /zip/, "unsupported_file"],
  ["a pickle of protocol 2", latin("\x80\x02}q\x00(X\x01\x00\x00"), /pickle/, "unsupported_file"],
  [
    "a pickle of protocol 4",
    latin("\x80\x04\x95\x0b" + "\0".repeat(9)),
    /pickle/,
    "unsupported_file",
  ],
  ["a tiny pickle", latin("\x80\x05N."), /pickle/, "unsupported_file"],
  [
    "an old torch.save",
    latin("\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."),
    /run/,
    "unsupported_file",
  ],
  ["a gzip archive", latin("\x1f\x8b\x08\0\0\0\0\0\0\x03"), /gzip/, "unsupported_file"],
  ["a GGUF file", latin("GGUF\x03\0\0\0" + "\0".repeat(16)), /GGUF/, "unsupported_file"],
  ["an HDF5 file", latin("\x89HDF\r\n\x1a\n" + "\0".repeat(16)), /HDF5/, "unsupported_file"],
  ["a NumPy file", latin("\x93NUMPY\x01\0v\0{'descr'"), /NumPy/, "unsupported_file"],
  ["a zstd archive", latin("\x28\xb5\x2f\xfd" + "\0".repeat(16)), /zstd/, "unsupported_file"],
  [
    "a Git LFS pointer",
    text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"),
    /git lfs pull/,
    "unsupported_file",
  ],
  ["a web page", text("<!DOCTYPE html><html></html>"), /web page/, "unsupported_file"],
];

const ALL = [
  ...LENGTH_AND_START,
  ...HEADER_TEXT,
  ...DUPLICATES,
  ...METADATA,
  ...DESCRIPTION,
  ...SHAPE,
  ...OFFSETS,
  ...FOREIGN,
];

for (const [name, file, message, code = "invalid_safetensors"] of ALL) {
  test(`refuses ${name}`, async () => {
    const error = await rejects(() => parseSafetensors(file, "bad.safetensors"), code, message);
    assert.equal(error.detail.file, "bad.safetensors");
  });
}

test("the bad files are at least 120 and all have their own names", () => {
  assert.ok(ALL.length >= 120, `${ALL.length}`);
  assert.equal(new Set(ALL.map(([name]) => name)).size, ALL.length);
});

test("a good file like the bad ones is read", () => {
  assert.deepEqual([...parseSafetensors(changed({})).keys()], ["a"]);
});

test("a header of 640 bytes begins like a pickle and is read all the same", () => {
  const header = JSON.stringify({ a: good }).padEnd(640, " ");
  const file = safetensorsFile(header, 8);
  assert.deepEqual([...file.subarray(0, 2)], [0x80, 2]);
  assert.equal(parseSafetensors(file).size, 1);
});

const SEEDS: Record<string, Uint8Array> = {
  "one tensor": serializeSafetensors({ a: HostTensor.zeros("float32", [2, 2]) }),
  "no metadata": serializeSafetensors({ a: HostTensor.zeros("uint8", [3]) }, {}),
  "many tensors": serializeSafetensors({
    "b.weight": HostTensor.zeros("bfloat16", [4, 2]),
    "b.bias": HostTensor.zeros("float32", [4]),
    "é": HostTensor.zeros("bool", []),
    "empty": HostTensor.zeros("int64", [0]),
  }),
};

for (const [name, seed] of Object.entries(SEEDS)) {
  test(`refuses every truncation of a file: ${name}`, async () => {
    assert.ok(parseSafetensors(seed).size > 0);
    for (let length = 0; length < seed.byteLength; length++) {
      await rejects(() => parseSafetensors(seed.slice(0, length)), "invalid_safetensors");
    }
  });
}

test("limits hold at the limit and one above", async () => {
  const { rank, tensors } = SAFETENSORS_LIMITS;
  const shape = (length: number) => ({ shape: new Array(length).fill(1), data_offsets: [0, 4] });
  assert.equal(parseSafetensors(changed(shape(rank), 4)).size, 1);
  await rejects(() => parseSafetensors(changed(shape(rank + 1), 4)), "invalid_safetensors");
  const empty = { dtype: "U8", shape: [2 ** 31, 0], data_offsets: [0, 0] };
  const many = (count: number) =>
    safetensorsFile(Object.fromEntries(Array.from({ length: count }, (_, i) => [`t${i}`, empty])));
  assert.equal(parseSafetensors(many(tensors)).size, tensors);
  await rejects(() => parseSafetensors(many(tensors + 1)), "invalid_safetensors", /too many/);
});
