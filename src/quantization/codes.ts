/**
 * The dense bit stream codes are stored in: code k occupies bits [k * bits, (k + 1) * bits), bit b of
 * the stream being bit (b % 8) of byte b >> 3. Eight-bit codes are bytes; of two 4-bit codes the first
 * is the low nibble. The last byte is padded with zero bits.
 */

import { HalftoneError } from "../errors.ts";

/** Bytes of `count` codes of `bits` bits. */
export function packedBytes(count: number, bits: number): number {
  return Math.ceil(count * bits / 8);
}

/** Packs codes (one per byte, each below 2^bits) into the stream; throws `invalid_argument` for other widths. */
export function packCodes(codes: Uint8Array, bits: number): Uint8Array {
  checkBits(bits);
  if (bits === 8) return codes.slice();
  return bits === 4 ? packNibbles(codes) : packBits(codes, bits);
}

/** Unpacks codes [start, start + count) of the stream, one per byte. */
export function unpackCodes(
  packed: Uint8Array,
  bits: number,
  count: number,
  start: number = 0,
): Uint8Array {
  checkBits(bits);
  checkLength(packed, bits, start + count);
  if (bits === 8) return packed.slice(start, start + count);
  if (bits === 4 && start % 2 === 0) return unpackNibbles(packed, count, start);
  return unpackBits(packed, bits, count, start);
}

function packNibbles(codes: Uint8Array): Uint8Array {
  const packed = new Uint8Array((codes.length + 1) >> 1);
  const pairs = codes.length >> 1;
  for (let pair = 0; pair < pairs; pair++) {
    packed[pair] = codes[2 * pair] | codes[2 * pair + 1] << 4;
  }
  if (codes.length % 2 === 1) packed[pairs] = codes[codes.length - 1];
  return packed;
}

function unpackNibbles(packed: Uint8Array, count: number, start: number): Uint8Array {
  const codes = new Uint8Array(count);
  const first = start >> 1;
  for (let index = 0; index < count; index++) {
    const byte = packed[first + (index >> 1)];
    codes[index] = (index & 1) === 0 ? byte & 15 : byte >> 4;
  }
  return codes;
}

function packBits(codes: Uint8Array, bits: number): Uint8Array {
  const packed = new Uint8Array(packedBytes(codes.length, bits));
  let pending = 0;
  let width = 0;
  let position = 0;
  for (const code of codes) {
    pending |= code << width;
    width += bits;
    while (width >= 8) {
      packed[position++] = pending & 255;
      pending >>= 8;
      width -= 8;
    }
  }
  if (width > 0) packed[position] = pending;
  return packed;
}

function unpackBits(packed: Uint8Array, bits: number, count: number, start: number): Uint8Array {
  const codes = new Uint8Array(count);
  const mask = (1 << bits) - 1;
  for (let index = 0; index < count; index++) {
    const bit = (start + index) * bits;
    const byte = Math.floor(bit / 8); // not >> 3: a stream may be longer than 2^31 bits
    const pair = packed[byte] | (packed[byte + 1] ?? 0) << 8;
    codes[index] = pair >> (bit % 8) & mask;
  }
  return codes;
}

function checkBits(bits: number): void {
  if (Number.isInteger(bits) && bits >= 1 && bits <= 8) return;
  throw new HalftoneError("invalid_argument", "Cannot pack codes", {
    field: "bits",
    found: bits,
    expected: "1 to 8",
  });
}

function checkLength(packed: Uint8Array, bits: number, count: number): void {
  if (packed.length >= packedBytes(count, bits)) return;
  throw new HalftoneError("invalid_argument", "Cannot unpack codes", {
    found: `${packed.length} bytes`,
    expected: `${packedBytes(count, bits)} bytes for ${count} codes of ${bits} bits`,
  });
}
