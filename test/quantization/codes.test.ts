import { test } from "node:test";
import assert from "node:assert/strict";
import fc from "fast-check";
import { packCodes, packedBytes, unpackCodes } from "../../src/quantization/codes.ts";
import { assertFails } from "./support.ts";

const BITS = fc.integer({ min: 1, max: 8 });

function codesOf(bits: number): fc.Arbitrary<Uint8Array> {
  return fc.array(fc.integer({ min: 0, max: 2 ** bits - 1 }), { maxLength: 200 })
    .map((codes) => Uint8Array.from(codes));
}

test("packed codes come back for every width", () => {
  fc.assert(
    fc.property(
      BITS.chain((bits) => fc.tuple(fc.constant(bits), codesOf(bits))),
      ([bits, codes]) => {
        const packed = packCodes(codes, bits);
        assert.equal(packed.length, packedBytes(codes.length, bits));
        assert.deepEqual(unpackCodes(packed, bits, codes.length), codes);
      },
    ),
  );
});

test("any run of codes can be unpacked alone", () => {
  fc.assert(
    fc.property(
      BITS.chain((bits) => fc.tuple(fc.constant(bits), codesOf(bits), fc.nat(199), fc.nat(199))),
      ([bits, codes, a, b]) => {
        const start = Math.min(a, b, codes.length), end = Math.min(Math.max(a, b), codes.length);
        const run = unpackCodes(packCodes(codes, bits), bits, end - start, start);
        assert.deepEqual(run, codes.slice(start, end));
      },
    ),
  );
});

test("the stream is the little-endian number whose digits are the codes", () => {
  fc.assert(
    fc.property(
      BITS.chain((bits) => fc.tuple(fc.constant(bits), codesOf(bits))),
      ([bits, codes]) => {
        const number = codes.reduceRight((sum, code) => sum << BigInt(bits) | BigInt(code), 0n);
        const stream = packCodes(codes, bits).reduceRight(
          (sum, byte) => sum << 8n | BigInt(byte),
          0n,
        );
        assert.equal(stream, number);
      },
    ),
  );
});

test("of two 4-bit codes the first is the low nibble, and padding is zero", () => {
  assert.deepEqual(packCodes(Uint8Array.of(1, 2, 15), 4), Uint8Array.of(0x21, 0x0f));
});

test("codes of no or too many bits, and short streams, are refused", async () => {
  await assertFails(() => packCodes(new Uint8Array(1), 0), "invalid_argument", /bits/);
  await assertFails(() => packCodes(new Uint8Array(1), 9), "invalid_argument", /bits/);
  await assertFails(
    () => unpackCodes(new Uint8Array(2), 4, 5),
    "invalid_argument",
    /expected 3 bytes/,
  );
});
