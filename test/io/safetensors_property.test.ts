import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { HalftoneError } from "../../src/errors.ts";
import { checkpointFromSources } from "../../src/io/checkpoint.ts";
import { parseSafetensors } from "../../src/io/safetensors.ts";
import { compareNames, serializeSafetensors } from "../../src/io/safetensors_writer.ts";
import { type ByteSource, memorySource } from "../../src/runtime/byte_source.ts";
import { type DType, DTYPES, itemSize } from "../../src/tensor/dtype.ts";
import { HostTensor } from "../../src/tensor/host_tensor.ts";
import { elementCount } from "../../src/tensor/shape.ts";

const tensor = fc.tuple(
  fc.constantFrom<DType>(...DTYPES),
  fc.array(fc.nat({ max: 4 }), { maxLength: 4 }),
  fc.nat({ max: 255 }),
).map(([dtype, shape, value]) => {
  const bytes = new Uint8Array(elementCount(shape) * itemSize(dtype)).fill(value);
  return new HostTensor(dtype, shape, bytes);
});

const name = fc.string({ unit: "grapheme", maxLength: 12 })
  .filter((text) => text !== "__metadata__");
const tensors = fc.array(fc.tuple(name, tensor), { maxLength: 8 }).map((pairs) => new Map(pairs));

const SEED = serializeSafetensors({
  "layer.weight": HostTensor.zeros("bfloat16", [4, 2]),
  "layer.bias": HostTensor.zeros("float32", [4]),
  scalar: HostTensor.zeros("int64", []),
});

/** Replaces, inserts or deletes a few bytes. */
const mutation = fc.array(
  fc.record({
    at: fc.nat({ max: SEED.byteLength }),
    remove: fc.nat({ max: 4 }),
    insert: fc.oneof(
      fc.uint8Array({ maxLength: 6 }),
      fc.constantFrom('"', "{", "}", "[", "]", ",", "0", "9999999999", "-1", "null", "U8").map(
        (text) => new TextEncoder().encode(text),
      ),
    ),
  }),
  { minLength: 1, maxLength: 4 },
);

function mutate(
  file: Uint8Array,
  changes: typeof mutation extends fc.Arbitrary<infer T> ? T : never,
) {
  let bytes = [...file];
  for (const { at, remove, insert } of changes) {
    bytes = [...bytes.slice(0, at), ...insert, ...bytes.slice(at + remove)];
  }
  return Uint8Array.from(bytes);
}

/** Counts what is asked for, and fails on any read that is not within the file. */
function watched(bytes: Uint8Array): ByteSource & { most: number } {
  const source = memorySource(bytes);
  const watcher = {
    ...source,
    most: 0,
    read(offset: number, length: number, into?: Uint8Array) {
      assert.ok(offset >= 0 && length >= 0 && offset + length <= bytes.byteLength);
      watcher.most = Math.max(watcher.most, length);
      return source.read(offset, length, into);
    },
  };
  return watcher;
}

test("any tensors survive the way through a file", () => {
  fc.assert(fc.property(tensors, (written) => {
    const read = parseSafetensors(serializeSafetensors(written));
    assert.equal(read.size, written.size);
    for (const [key, { dtype, shape, bytes }] of written) {
      const found = read.get(key)!;
      assert.deepEqual([found.dtype, [...found.shape]], [dtype, [...shape]]);
      assert.deepEqual([...found.bytes], [...bytes]);
    }
  }));
});

test("a changed file is read within its bounds or refused with an error of ours", async () => {
  await fc.assert(
    fc.asyncProperty(mutation, async (changes) => {
      const source = watched(mutate(SEED, changes));
      try {
        const checkpoint = await checkpointFromSources("mutant", [source], {
          allowNonFinite: true,
        });
        for (const entry of checkpoint.entries.values()) {
          const { bytes } = await checkpoint.read(entry.name);
          assert.equal(bytes.byteLength, entry.bytes);
        }
      } catch (error) {
        if (!(error instanceof HalftoneError)) throw error;
      }
      assert.ok(source.most <= source.size);
    }),
    { numRuns: 2000 },
  );
});

test("every single flipped bit gives a file within bounds or an error of ours", async () => {
  let refused = 0;
  for (let bit = 0; bit < SEED.byteLength * 8; bit++) {
    const bytes = SEED.slice();
    bytes[bit >> 3] ^= 1 << (bit & 7);
    try {
      const checkpoint = await checkpointFromSources("mutant", [watched(bytes)]);
      for (const entry of checkpoint.entries.keys()) await checkpoint.read(entry);
    } catch (error) {
      if (!(error instanceof HalftoneError)) throw error;
      refused++;
    }
  }
  // A flip in a name, in metadata or in data goes unseen; one in the structure does not.
  assert.ok(refused > SEED.byteLength);
});

test("random bytes are refused with an error of ours", () => {
  fc.assert(fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
    assert.throws(() => parseSafetensors(bytes), HalftoneError);
  }));
});

test("names sort as their UTF-8 bytes do", () => {
  const encoder = new TextEncoder();
  const text = fc.string({ unit: "binary", maxLength: 6 });
  fc.assert(fc.property(text, text, (a, b) => {
    const [left, right] = [encoder.encode(a), encoder.encode(b)];
    const i = left.findIndex((byte, at) => byte !== right[at]);
    const expected = i < 0 ? left.length - right.length : left[i] - (right[i] ?? -1);
    assert.equal(Math.sign(compareNames(a, b)), Math.sign(expected));
  }));
});
