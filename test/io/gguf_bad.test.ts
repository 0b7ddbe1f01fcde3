import assert from "node:assert/strict";
import { test } from "node:test";
import type { ErrorCode } from "../../src/errors.ts";
import { GGUF_LIMITS, parseGgufHeader } from "../../src/io/gguf.ts";
import {
  ARCHITECTURE,
  bytes,
  f32,
  type FileParts,
  ggufFile,
  info,
  type InfoParts,
  join,
  pair,
  text,
  TYPES,
  u32,
  u64,
  u8,
} from "./gguf_file.ts";
import { rejects } from "./support.ts";

type BadFile = [name: string, file: Uint8Array, message: RegExp, code?: ErrorCode];

const latin = (value: string) => Uint8Array.from(value, (character) => character.charCodeAt(0));
const MAX = 2n ** 64n - 1n;
/** Numbers no size may have. */
const HUGE: readonly [string, bigint][] = [
  ["2^31", 2n ** 31n],
  ["2^32", 2n ** 32n],
  ["2^40", 2n ** 40n],
  ["2^53", 2n ** 53n],
  ["2^63", 2n ** 63n],
  ["2^64 - 1", MAX],
];

const magic = (value: Uint8Array) => ggufFile({ magic: value });
const version = (value: number) => ggufFile({ version: value });
const pairs = (...fields: Uint8Array[]) => ggufFile({ pairs: fields });
const value = (type: number, field: Uint8Array) => pairs(pair("key", type, field));
const array = (item: number, count: number | bigint, ...items: Uint8Array[]) =>
  value(TYPES.array, join(u32(item), u64(count), ...items));
const alignment = (type: number, field: Uint8Array, size = 32) =>
  ggufFile({ pairs: [pair("general.alignment", type, field)], alignment: size });
const tensor = (parts: InfoParts, data = 32) => ggufFile({ infos: [info(parts)], data });
const tensors = (parts: readonly InfoParts[], data: number, more: FileParts = {}) =>
  ggufFile({
    infos: parts.map((part, i) => info({ name: text(`t${i}`), ...part })),
    data,
    ...more,
  });

const START: BadFile[] = [
  ["an empty file", bytes(), /ends within its header/],
  ["one byte", latin("G"), /ends within its header/],
  ["three bytes", latin("GGU"), /ends within its header/],
  ["only the magic", latin("GGUF"), /ends within its header/],
  ["only magic and version", join(latin("GGUF"), u32(3)), /ends within its header/],
  ["no metadata count", join(latin("GGUF"), u32(3), u64(0)), /ends within its header/],
  ["the magic in lower case", magic(latin("gguf")), /does not begin with GGUF/],
  ["the magic reversed", magic(latin("FUGG")), /does not begin with GGUF/],
  ["the magic of GGML", magic(latin("GGML")), /does not begin with GGUF/],
  ["the magic of GGJT", magic(latin("tjgg")), /does not begin with GGUF/],
  ["a zero magic", magic(bytes(0, 0, 0, 0)), /does not begin with GGUF/],
  ["a byte before the magic", join(bytes(0), ggufFile()), /does not begin with GGUF/],
  ["a byte order mark", join(bytes(0xef, 0xbb, 0xbf), ggufFile()), /does not begin with GGUF/],
  ["version 0", version(0), /no known version/],
  ["version 1", version(1), /version or byte order/, "unsupported"],
  ["version 4", version(4), /no known version/],
  ["version 2^32 - 1", version(2 ** 32 - 1), /no known version/],
  ["a big-endian file", version(0x03000000), /version or byte order/, "unsupported"],
  ["a big-endian file of version 2", version(0x02000000), /version or byte order/, "unsupported"],
];

const COUNTS: BadFile[] = [
  ["one tensor more than there are", ggufFile({ tensorCount: 2 }), /Cannot parse GGUF/],
  ["one tensor fewer than there are", ggufFile({ tensorCount: 0 }), /bytes after the last tensor/],
  ["one pair more than there are", ggufFile({ pairCount: 2 }), /Cannot parse GGUF/],
  ["one pair fewer than there are", ggufFile({ pairCount: 0 }), /Cannot parse GGUF/],
  ["a tensor count of 100", ggufFile({ tensorCount: 100 }), /count is larger/],
  ["a pair count of 100", ggufFile({ pairCount: 100 }), /count is larger/],
  ...HUGE.map(([name, count]): BadFile => [
    `a tensor count of ${name}`,
    ggufFile({ tensorCount: count }),
    /count is larger|larger than any file/,
  ]),
  ...HUGE.map(([name, count]): BadFile => [
    `a pair count of ${name}`,
    ggufFile({ pairCount: count }),
    /count is larger|larger than any file/,
  ]),
  [
    "more tensors than allowed in a large file",
    ggufFile({ tensorCount: GGUF_LIMITS.tensors + 1, data: 2 ** 21 }),
    /count is larger.*at most 65536/,
  ],
  [
    "more pairs than allowed in a large file",
    ggufFile({ pairCount: GGUF_LIMITS.metadata + 1, data: 2 ** 17 }),
    /count is larger.*at most 4096/,
  ],
];

const KEYS: BadFile[] = [
  ["an empty key", pairs(pair("", TYPES.uint8, u8(1))), /key is empty/],
  ["a key twice", pairs(ARCHITECTURE, ARCHITECTURE), /key is there twice/],
  ["a key of 256 bytes", pairs(pair("k".repeat(256), TYPES.uint8, u8(1))), /string is too long/],
  ["a key that is not UTF-8", pairs(join(u64(1), bytes(0xff), u32(0), u8(1))), /not UTF-8/],
  ["an overlong key", pairs(join(u64(2), bytes(0xc0, 0xaf), u32(0), u8(1))), /not UTF-8/],
  ["a surrogate in a key", pairs(join(u64(3), bytes(0xed, 0xa0, 0x80), u32(0))), /not UTF-8/],
  ["half a character", pairs(join(u64(1), bytes(0xc3), u32(0), u8(1))), /not UTF-8/],
  ...HUGE.map(([name, length]): BadFile => [
    `a key of ${name} bytes`,
    pairs(join(text("k", length), u32(0), u8(1))),
    /string is too long|larger than any file/,
  ]),
];

const SCALARS: BadFile[] = [
  ["a value of type 13", value(13, u8(0)), /value has an unknown type/],
  ["a value of type 255", value(255, u8(0)), /value has an unknown type/],
  ["a value of type 2^31", value(2 ** 31, u8(0)), /value has an unknown type/],
  ["a value of type 2^32 - 1", value(2 ** 32 - 1, u8(0)), /value has an unknown type/],
  ["a bool of 2", value(TYPES.bool, u8(2)), /neither 0 nor 1/],
  ["a bool of 255", value(TYPES.bool, u8(255)), /neither 0 nor 1/],
  ["a string that is not UTF-8", value(TYPES.string, join(u64(1), bytes(0x80))), /not UTF-8/],
  ["a string longer than the file", value(TYPES.string, text("ab", 500)), /string is too long/],
  [
    "a string of more than 1 MiB",
    value(TYPES.string, text("x".repeat(2 ** 20 + 1))),
    /string is too long/,
  ],
  ...HUGE.map(([name, length]): BadFile => [
    `a string of ${name} bytes`,
    value(TYPES.string, text("ab", length)),
    /string is too long|larger than any file/,
  ]),
  ...Object.entries(TYPES).filter(([name]) => name !== "string" && name !== "array").map((
    [name, type],
  ): BadFile => [
    `a file that ends before a ${name}`,
    join(latin("GGUF"), u32(3), u64(0), u64(1), text("k"), u32(type)),
    /ends within its header|count is larger/,
  ]),
];

const ARRAYS: BadFile[] = [
  ["an array of arrays", array(TYPES.array, 1, u32(0), u64(0)), /arrays lie within arrays/],
  ["an empty array of arrays", array(TYPES.array, 0), /arrays lie within arrays/],
  ["an array of type 13", array(13, 1, u8(0)), /value has an unknown type/],
  ["an array of type 2^32 - 1", array(2 ** 32 - 1, 0), /value has an unknown type/],
  ["an array of bools of 2", array(TYPES.bool, 2, u8(1), u8(2)), /neither 0 nor 1/],
  ["an array longer than the file", array(TYPES.uint8, 500), /array is too long/],
  ["an array of more strings than fit", array(TYPES.string, 60), /array is too long/],
  ["an array of more doubles than fit", array(TYPES.float64, 60), /array is too long/],
  ["strings whose lengths lie", array(TYPES.string, 2, text("a"), text("b", 900)), /too long/],
  [
    "a long array with a lying string",
    array(TYPES.string, 65, ...Array.from({ length: 64 }, () => text("a")), text("b", MAX)),
    /larger than any file/,
  ],
  [
    "an array of more items than allowed",
    ggufFile({
      pairs: [pair("k", TYPES.array, join(u32(0), u64(2 ** 20 + 1)))],
      data: 2 ** 21,
    }),
    /array is too long.*at most 1048576/,
  ],
  ...HUGE.map(([name, count]): BadFile => [
    `an array of ${name} items`,
    array(TYPES.uint8, count),
    /array is too long|larger than any file/,
  ]),
  ...HUGE.map(([name, count]): BadFile => [
    `an array of ${name} strings`,
    array(TYPES.string, count),
    /array is too long|larger than any file/,
  ]),
];

const ALIGNMENTS: BadFile[] = [
  ...[0, 1, 2, 4, 7, 24, 33, 8192, 65_536, 2 ** 31, 2 ** 32 - 1].map((size): BadFile => [
    `an alignment of ${size}`,
    alignment(TYPES.uint32, u32(size)),
    /alignment cannot be/,
  ]),
  ["an alignment as uint64", alignment(TYPES.uint64, u64(32)), /alignment cannot be/],
  ["an alignment as int32", alignment(TYPES.int32, u32(32)), /alignment cannot be/],
  ["an alignment as float32", alignment(TYPES.float32, f32(32)), /alignment cannot be/],
  ["an alignment as a string", alignment(TYPES.string, text("32")), /alignment cannot be/],
  ["an alignment as a bool", alignment(TYPES.bool, u8(1)), /alignment cannot be/],
  [
    "an alignment as an array",
    alignment(TYPES.array, join(u32(TYPES.uint32), u64(1), u32(32))),
    /alignment cannot be/,
  ],
];

const NAMES: BadFile[] = [
  ["a tensor without a name", tensor({ name: text("") }), /no name/],
  ["a name of 256 bytes", tensor({ name: text("n".repeat(256)) }), /string is too long/],
  ["a name that is not UTF-8", tensor({ name: join(u64(1), bytes(0xfe)) }), /not UTF-8/],
  [
    "a name twice",
    tensors([{}, { name: text("t0"), offset: 32 }], 64),
    /two tensors have one name/,
  ],
  ...HUGE.map(([name, length]): BadFile => [
    `a name of ${name} bytes`,
    tensor({ name: text("a", length) }),
    /string is too long|larger than any file/,
  ]),
];

const SHAPES: BadFile[] = [
  ...[5, 6, 255, 2 ** 31, 2 ** 32 - 1].map((rank): BadFile => [
    `a rank of ${rank}`,
    tensor({ rank, dimensions: [4] }),
    /too many dimensions/,
  ]),
  ["a rank larger than the dimensions", tensor({ rank: 2 }), /Cannot (parse|read)/],
  ["a rank smaller than the dimensions", tensor({ rank: 0 }), /Cannot (parse|read)/],
  ["a dimension of 0", tensor({ dimensions: [0] }), /impossible dimension/],
  ["a second dimension of 0", tensor({ dimensions: [4, 0] }), /impossible dimension/],
  ...HUGE.slice(1).map(([name, dimension]): BadFile => [
    `a dimension of ${name}`,
    tensor({ dimensions: [dimension] }),
    /impossible dimension|larger than any file/,
  ]),
  ["a dimension just beyond the limit", tensor({ dimensions: [2 ** 31 + 1] }), /impossible/],
  ["a size of 2^33", tensor({ dimensions: [2 ** 31] }), /outside the file/],
  ["a size of 2^64", tensor({ dimensions: [2 ** 31, 2 ** 31] }), /size overflows/],
  ["a size of 2^95", tensor({ dimensions: [2 ** 31, 2 ** 31, 2 ** 31] }), /size overflows/],
  [
    "a size that overflows to 0",
    tensor({ dimensions: [2 ** 31, 2 ** 31, 4, 1] }),
    /size overflows/,
  ],
];

const TYPES_OF_TENSORS: BadFile[] = [
  ...[4, 5, 31, 32, 33, 36, 38, 43, 100, 2 ** 31, 2 ** 32 - 1].map((type): BadFile => [
    `a tensor of type ${type}`,
    tensor({ type }),
    /tensor has an unknown type/,
  ]),
  ...[9, 15, 16, 17, 18, 19, 21, 22, 29, 34, 35, 41, 42].map((type): BadFile => [
    `a tensor of type ${type}, which is known but not read`,
    tensor({ type, dimensions: [256] }, 4096),
    /of this type/,
    "unsupported",
  ]),
  ...[[2, 31], [2, 16], [8, 33], [20, 1], [39, 48]].map(([type, columns]): BadFile => [
    `rows of ${columns} in blocks of 32, type ${type}`,
    tensor({ type, dimensions: [columns] }, 4096),
    /no whole number of blocks/,
  ]),
  ...[[10, 32], [12, 128], [14, 255], [23, 257], [40, 32]].map(([type, columns]): BadFile => [
    `rows of ${columns} in larger blocks, type ${type}`,
    tensor({ type, dimensions: [columns] }, 4096),
    /no whole number of blocks/,
  ]),
];

const DATA: BadFile[] = [
  ["no data", tensor({}, 0), /outside the file/],
  ["data one byte short", tensor({}, 15), /outside the file/],
  ["data of the shape without its type", tensor({ type: 28 }, 31), /outside the file/],
  ["a byte too many", tensor({}, 33), /bytes after the last tensor/],
  ["padding twice", tensor({}, 64), /bytes after the last tensor/],
  ["bytes without tensors", ggufFile({ infos: [], data: 1 }), /bytes after the last tensor/],
  ["an offset of 1", tensor({ offset: 1 }, 64), /not aligned/],
  ["an offset of 16", tensor({ offset: 16 }, 64), /not aligned/],
  ["a first offset of 32", tensor({ offset: 32 }, 64), /hole in the data/],
  ...HUGE.map(([name, offset]): BadFile => [
    `an offset of ${name}`,
    tensor({ offset }),
    /hole in the data|larger than any file|not aligned/,
  ]),
  ["two tensors at one place", tensors([{}, {}], 64), /two tensors overlap/],
  ["a hole between two tensors", tensors([{}, { offset: 64 }], 96), /hole in the data/],
  ["two tensors in reverse", tensors([{ offset: 32 }, {}], 64), /hole in the data/],
  ["a tensor within another", tensors([{ dimensions: [16] }, { offset: 32 }], 96), /overlap/],
  ["a second tensor past the end", tensors([{}, { offset: 32 }], 32), /outside the file/],
  ["a second tensor cut off", tensors([{}, { offset: 32 }], 47), /outside the file/],
  [
    "offsets of another alignment",
    ggufFile({
      pairs: [pair("general.alignment", TYPES.uint32, u32(64))],
      infos: [info(), info({ name: text("b"), offset: 32 })],
      alignment: 64,
      data: 96,
    }),
    /not aligned/,
  ],
];

const BAD: BadFile[] = [
  ...START,
  ...COUNTS,
  ...KEYS,
  ...SCALARS,
  ...ARRAYS,
  ...ALIGNMENTS,
  ...NAMES,
  ...SHAPES,
  ...TYPES_OF_TENSORS,
  ...DATA,
];

for (const [name, file, message, code = "invalid_gguf"] of BAD) {
  test(`refuses ${name}`, async () => {
    await rejects(() => parseGgufHeader(file, file.length), code, message);
  });
}

test("there are at least 160 bad files, no two of one name", () => {
  assert.ok(BAD.length >= 160, `${BAD.length}`);
  assert.equal(new Set(BAD.map(([name]) => name)).size, BAD.length);
});

test("good files like the bad ones are read", () => {
  const good = [
    ggufFile(),
    ggufFile({ version: 2 }),
    ggufFile({ infos: [], data: 0 }),
    ggufFile({ infos: [], pairs: [], data: 0 }),
    tensor({}, 16),
    tensor({}, 31),
    tensors([{}, { offset: 32 }], 48),
    ggufFile({ pairs: [pair("general.alignment", TYPES.uint32, u32(8))], alignment: 8, data: 16 }),
    alignment(TYPES.uint32, u32(4096), 4096),
    tensor({ rank: 0, dimensions: [] }, 4),
    tensor({ type: 12, dimensions: [256, 2] }, 288),
    array(TYPES.string, 65, ...Array.from({ length: 65 }, () => text("a"))),
    value(TYPES.string, text("x".repeat(2 ** 20))),
  ];
  for (const file of good) assert.ok(parseGgufHeader(file, file.length));
});

const SEEDS: Record<string, Uint8Array> = {
  "one tensor": ggufFile(),
  "many kinds of metadata": ggufFile({
    pairs: [
      ARCHITECTURE,
      pair("b", TYPES.bool, u8(1)),
      pair("f", TYPES.float32, f32(0.5)),
      pair("l", TYPES.array, join(u32(TYPES.string), u64(2), text("é"), text("b"))),
    ],
    infos: [info(), info({ name: text("b"), type: 2, dimensions: [32, 2], offset: 32 })],
    data: 32 + 36,
  }),
};

for (const [name, seed] of Object.entries(SEEDS)) {
  test(`refuses every truncation of a file: ${name}`, async () => {
    const end = [...parseGgufHeader(seed, seed.length)!.entries.values()].at(-1)!;
    for (let length = 0; length < end.offset + end.bytes; length++) {
      await rejects(() => parseGgufHeader(seed.slice(0, length), length), "invalid_gguf");
    }
  });

  test(`asks for more of a file of which only the start is there: ${name}`, () => {
    const whole = parseGgufHeader(seed, seed.length)!;
    for (let length = 0; length < seed.length; length++) {
      const header = parseGgufHeader(seed.subarray(0, length), seed.length);
      if (header !== null) assert.deepEqual(header, whole);
      else assert.ok(length < whole.dataOffset);
    }
  });
}
