/**
 * Where a GGUF block keeps the bits of its codes, and of its groups' scale codes. Every function moves
 * one block between bytes (`at` is where the part begins) and an array with one code per element.
 */

/** Codes of a block, both ways. */
export interface CodePlanes {
  read(bytes: Uint8Array, at: number, codes: Uint8Array): void;
  write(bytes: Uint8Array, at: number, codes: Uint8Array): void;
}

/** One byte per signed code; 128 is added. */
export function signedBytes(start: number, count: number): CodePlanes {
  return {
    read(bytes, at, codes) {
      for (let i = 0; i < count; i++) codes[i] = bytes[at + start + i] ^ 128;
    },
    write(bytes, at, codes) {
      for (let i = 0; i < count; i++) bytes[at + start + i] = codes[i] ^ 128;
    },
  };
}

/** One byte per code. */
export function plainBytes(start: number, count: number): CodePlanes {
  return {
    read(bytes, at, codes) {
      for (let i = 0; i < count; i++) codes[i] = bytes[at + start + i];
    },
    write(bytes, at, codes) {
      for (let i = 0; i < count; i++) bytes[at + start + i] = codes[i];
    },
  };
}

/** Runs of 2 * half codes: low nibbles hold the first half of a run, high nibbles the second. */
export function nibbleHalves(start: number, half: number, count: number): CodePlanes {
  return {
    read(bytes, at, codes) {
      let byte = at + start;
      for (let run = 0; run < count; run += 2 * half) {
        for (let i = run; i < run + half; i++) {
          const pair = bytes[byte++];
          codes[i] = pair & 15;
          codes[i + half] = pair >> 4;
        }
      }
    },
    write(bytes, at, codes) {
      let byte = at + start;
      for (let run = 0; run < count; run += 2 * half) {
        for (let i = run; i < run + half; i++) {
          bytes[byte++] = codes[i] & 15 | (codes[i + half] & 15) << 4;
        }
      }
    },
  };
}

/** Runs of 128 codes: two bits of each of codes l, l + 32, l + 64 and l + 96 in byte l. */
export function bitPairs(start: number): CodePlanes {
  return {
    read(bytes, at, codes) {
      let byte = at + start;
      for (let run = 0; run < 256; run += 128) {
        for (let i = run; i < run + 32; i++) {
          const quad = bytes[byte++];
          codes[i] = quad & 3;
          codes[i + 32] = quad >> 2 & 3;
          codes[i + 64] = quad >> 4 & 3;
          codes[i + 96] = quad >> 6;
        }
      }
    },
    write(bytes, at, codes) {
      let byte = at + start;
      for (let run = 0; run < 256; run += 128) {
        for (let i = run; i < run + 32; i++) {
          bytes[byte++] = codes[i] & 3 | (codes[i + 32] & 3) << 2 | (codes[i + 64] & 3) << 4 |
            (codes[i + 96] & 3) << 6;
        }
      }
    },
  };
}

/** Adds to each code of 256 one bit of weight `1 << shift`: bit i / 32 of byte i % 32. */
export function withBitPerByte(low: CodePlanes, start: number, shift: number): CodePlanes {
  return {
    read(bytes, at, codes) {
      low.read(bytes, at, codes);
      for (let i = 0; i < 256; i++) {
        codes[i] |= (bytes[at + start + (i & 31)] >> (i >> 5) & 1) << shift;
      }
    },
    write(bytes, at, codes) {
      low.write(bytes, at, codes);
      for (let byte = 0; byte < 32; byte++) {
        let bits = 0;
        for (let bit = 0; bit < 8; bit++) bits |= (codes[32 * bit + byte] >> shift & 1) << bit;
        bytes[at + start + byte] = bits;
      }
    },
  };
}

/** Adds to each code of 32 its fifth bit: bit i of a little-endian word. */
export function withFifthBit(low: CodePlanes, start: number): CodePlanes {
  return {
    read(bytes, at, codes) {
      low.read(bytes, at, codes);
      for (let i = 0; i < 32; i++) codes[i] |= (bytes[at + start + (i >> 3)] >> (i & 7) & 1) << 4;
    },
    write(bytes, at, codes) {
      low.write(bytes, at, codes);
      for (let byte = 0; byte < 4; byte++) {
        let bits = 0;
        for (let bit = 0; bit < 8; bit++) bits |= (codes[8 * byte + bit] >> 4 & 1) << bit;
        bytes[at + start + byte] = bits;
      }
    },
  };
}

/** Q6_K: runs of 128 codes, four bits of each in 64 bytes, two bits in 32. */
export function sixBits(lowStart: number, highStart: number): CodePlanes {
  const high = bitPairs(highStart);
  const low = nibbleHalves(lowStart, 64, 256);
  const upper = new Uint8Array(256);
  return {
    read(bytes, at, codes) {
      low.read(bytes, at, codes);
      high.read(bytes, at, upper);
      for (let i = 0; i < 256; i++) codes[i] |= upper[i] << 4;
    },
    write(bytes, at, codes) {
      low.write(bytes, at, codes);
      for (let i = 0; i < 256; i++) upper[i] = codes[i] >> 4;
      high.write(bytes, at, upper);
    },
  };
}

/** Low or high nibbles of bytes that hold a scale and a minimum each. */
export function nibbleOfBytes(start: number, count: number, shift: 0 | 4): CodePlanes {
  return {
    read(bytes, at, codes) {
      for (let i = 0; i < count; i++) codes[i] = bytes[at + start + i] >> shift & 15;
    },
    write(bytes, at, codes) {
      const kept = 15 << (4 - shift);
      for (let i = 0; i < count; i++) {
        bytes[at + start + i] = bytes[at + start + i] & kept | (codes[i] & 15) << shift;
      }
    },
  };
}

/** Q3_K: 16 scales of six bits in 12 bytes. */
export function sixteenScales(start: number): CodePlanes {
  return {
    read(bytes, at, codes) {
      for (let i = 0; i < 16; i++) {
        const low = bytes[at + start + (i & 7)] >> (i < 8 ? 0 : 4) & 15;
        codes[i] = low | (bytes[at + start + 8 + (i & 3)] >> 2 * (i >> 2) & 3) << 4;
      }
    },
    write(bytes, at, codes) {
      for (let i = 0; i < 8; i++) {
        bytes[at + start + i] = codes[i] & 15 | (codes[i + 8] & 15) << 4;
      }
      for (let i = 0; i < 4; i++) {
        bytes[at + start + 8 + i] = codes[i] >> 4 | codes[i + 4] >> 4 << 2 |
          codes[i + 8] >> 4 << 4 | codes[i + 12] >> 4 << 6;
      }
    },
  };
}

/**
 * Q4_K, Q5_K: eight scales and eight minima of six bits in 12 bytes. `which` 0: the scales, 1: the
 * minima. The last four of both keep their upper bits above the first four.
 */
export function eightScales(start: number, which: 0 | 1): CodePlanes {
  const shift = 4 * which;
  return {
    read(bytes, at, codes) {
      const first = at + start + 4 * which;
      const shared = at + start + 8;
      for (let i = 0; i < 4; i++) {
        codes[i] = bytes[first + i] & 63;
        codes[i + 4] = bytes[shared + i] >> shift & 15 | bytes[first + i] >> 6 << 4;
      }
    },
    write(bytes, at, codes) {
      const first = at + start + 4 * which;
      const shared = at + start + 8;
      for (let i = 0; i < 4; i++) {
        bytes[first + i] = codes[i] & 63 | codes[i + 4] >> 4 << 6;
        bytes[shared + i] = bytes[shared + i] & 15 << (4 - shift) | (codes[i + 4] & 15) << shift;
      }
    },
  };
}

/** IQ4_XS: eight scales of six bits, upper two in a 16-bit word, lower four in nibbles. */
export function splitScales(highStart: number, lowStart: number): CodePlanes {
  return {
    read(bytes, at, codes) {
      for (let i = 0; i < 8; i++) {
        const low = bytes[at + lowStart + (i >> 1)] >> 4 * (i & 1) & 15;
        codes[i] = low | (bytes[at + highStart + (i >> 2)] >> 2 * (i & 3) & 3) << 4;
      }
    },
    write(bytes, at, codes) {
      for (let i = 0; i < 4; i++) {
        bytes[at + lowStart + i] = codes[2 * i] & 15 | (codes[2 * i + 1] & 15) << 4;
      }
      for (let i = 0; i < 2; i++) {
        bytes[at + highStart + i] = codes[4 * i] >> 4 | codes[4 * i + 1] >> 4 << 2 |
          codes[4 * i + 2] >> 4 << 4 | codes[4 * i + 3] >> 4 << 6;
      }
    },
  };
}
