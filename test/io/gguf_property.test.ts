import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { HalftoneError } from "../../src/errors.ts";
import { parseGgufHeader } from "../../src/io/gguf.ts";
import type { GgufScalar, GgufValue, GgufValueType } from "../../src/io/gguf_metadata.ts";
import { ggufTensorBytes, serializeGguf } from "../../src/io/gguf_writer.ts";
import { GGUF_TYPES } from "../../src/quantization/gguf_types.ts";

type ScalarType = Exclude<GgufValueType, "array">;

const SCALARS: Readonly<Record<ScalarType, fc.Arbitrary<GgufScalar>>> = {
  uint8: fc.integer({ min: 0, max: 255 }),
  int8: fc.integer({ min: -128, max: 127 }),
  uint16: fc.integer({ min: 0, max: 65_535 }),
  int16: fc.integer({ min: -32_768, max: 32_767 }),
  uint32: fc.integer({ min: 0, max: 2 ** 32 - 1 }),
  int32: fc.integer({ min: -(2 ** 31), max: 2 ** 31 - 1 }),
  float32: fc.float({ noNaN: true }),
  float64: fc.double({ noNaN: true }),
  bool: fc.boolean(),
  string: fc.string({ unit: "grapheme", maxLength: 40 }),
  uint64: fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
  int64: fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n }),
};

const value: fc.Arbitrary<GgufValue> = fc.constantFrom(...Object.keys(SCALARS) as ScalarType[])
  .chain((type) =>
    fc.oneof(
      SCALARS[type].map((value): GgufValue => ({ type, value })),
      fc.array(SCALARS[type], { maxLength: 9 }).map((items): GgufValue => ({
        type: "array",
        itemType: type,
        count: items.length,
        value: items,
      })),
    )
  );

const name = fc.string({ unit: "grapheme", minLength: 1, maxLength: 20 });
const key = name.map((text) => `key.${text}`); // never general.alignment
const pairs = fc.array(fc.tuple(key, value), { maxLength: 6 })
  .map((entries) => [...new Map(entries)]);
const tensors = fc.array(
  fc.record({
    name,
    type: fc.constantFrom(...GGUF_TYPES),
    blocks: fc.integer({ min: 1, max: 3 }),
    rows: fc.array(fc.integer({ min: 1, max: 3 }), { maxLength: 3 }),
    fill: fc.nat({ max: 255 }),
  }),
  { maxLength: 6 },
).map((list) =>
  [...new Map(list.map((entry) => [entry.name, entry])).values()].map(
    ({ name, type, blocks, rows, fill }) => {
      const description = { name, type: type.name, shape: [...rows, blocks * type.elements] };
      const data = new Uint8Array(ggufTensorBytes(description)).fill(fill);
      return { ...description, data };
    },
  )
);

test("what is written is read back: names, types, shapes, values, bytes", () => {
  fc.assert(fc.property(tensors, pairs, (tensors, pairs) => {
    const file = serializeGguf(tensors, pairs);
    const header = parseGgufHeader(file, file.length)!;
    assert.deepEqual([...header.metadata], pairs);
    const read = [...header.entries.values()].map(({ name, type, shape, offset, bytes }) => ({
      name,
      type: type.name,
      shape,
      data: file.slice(offset, offset + bytes),
    }));
    assert.deepEqual(read, tensors);
  }));
});

const SEED = serializeGguf([
  { name: "layer.weight", type: "Q4_0", shape: [2, 32], data: new Uint8Array(36) },
  { name: "layer.bias", type: "F32", shape: [4], data: new Uint8Array(16) },
], [
  ["general.architecture", { type: "string", value: "flux" }],
  ["names", { type: "array", itemType: "string", count: 2, value: ["a", "b"] }],
  ["limit", { type: "uint64", value: 7n }],
]);

const mutations = fc.array(
  fc.record({
    at: fc.nat({ max: SEED.length }),
    remove: fc.nat({ max: 8 }),
    insert: fc.oneof(
      fc.uint8Array({ maxLength: 8 }),
      fc.constantFrom(
        [0],
        [255, 255, 255, 255],
        [255, 255, 255, 255, 255, 255, 255, 255],
        [0, 0, 0, 0, 0, 0, 0, 128],
        [9, 0, 0, 0],
      ).map((bytes) => Uint8Array.from(bytes)),
    ),
  }),
  { minLength: 1, maxLength: 4 },
);

test("a damaged file is refused with a code or read; nothing else happens", () => {
  let refused = 0;
  fc.assert(
    fc.property(mutations, (changes) => {
      const bytes = [...SEED];
      for (const { at, remove, insert } of changes) bytes.splice(at, remove, ...insert);
      const file = Uint8Array.from(bytes);
      try {
        const header = parseGgufHeader(file, file.length)!;
        for (const { offset, bytes } of header.entries.values()) {
          assert.ok(offset + bytes <= file.length);
        }
      } catch (error) {
        if (!(error instanceof HalftoneError)) throw error;
        assert.match(error.code, /^(invalid_gguf|unsupported)$/);
        refused++;
      }
    }),
    { numRuns: 5000 },
  );
  assert.ok(refused > 2000);
});
