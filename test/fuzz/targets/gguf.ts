/** GGUF files whose fields are almost right. */

import { parseGgufHeader } from "../../../src/io/gguf.ts";
import { serializeGguf } from "../../../src/io/gguf_writer.ts";
import { GGUF_TYPES } from "../../../src/quantization/gguf_types.ts";
import { ARCHITECTURE, bytes, type Field, info, join, pair, TYPES } from "../../io/gguf_file.ts";
import { ggufFile, text, u32, u64 } from "../../io/gguf_file.ts";
import { mutateBytes } from "../mutate.ts";
import type { Random } from "../random.ts";
import type { FuzzTarget } from "../target.ts";

/** Reads the headers of whole files, all at once and from their first bytes. */
export const GGUF_TARGET: FuzzTarget<Uint8Array> = {
  name: "gguf",
  make: mutant,
  size: (file) => file.length,
  run: (file) => {
    const header = parseGgufHeader(file, file.length);
    if (header === null) throw new Error("it waits for more than the whole file");
    let end = header.dataOffset;
    for (const { offset, bytes } of header.entries.values()) {
      if (offset < end || offset + bytes > file.length) throw new Error("data outside the file");
      end = offset + bytes;
    }
    // What a part of the file says must be what the whole says, or that there is more to read.
    parseGgufHeader(file.subarray(0, file.length >> 1), file.length);
  },
};

const TYPE_NUMBERS = Object.values(TYPES);
const COUNTS = [0, 1, 2, 255, 2 ** 20, 2 ** 31, 2 ** 32, 2 ** 53, 2n ** 63n, 2n ** 64n - 1n];

function value(random: Random, type: number): Field {
  switch (type) {
    case TYPES.string:
      return text(random.pick(["", "flux", "é", "x".repeat(99)]));
    case TYPES.array:
      return array(random);
    case TYPES.bool:
      return bytes(random.below(2));
    default:
      return new Uint8Array([1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8][type] ?? 4);
  }
}

function array(random: Random): Field {
  const type = random.pick(TYPE_NUMBERS.filter((number) => number !== TYPES.array));
  const items = Array.from({ length: random.below(4) }, () => value(random, type));
  const said = random.once(6) ? random.pick(COUNTS) : items.length;
  return join(u32(type), u64(said), ...items);
}

function randomPair(random: Random, index: number): Field {
  const type = random.pick(TYPE_NUMBERS);
  const key = random.once(8) ? "general.alignment" : `key.${random.once(9) ? 0 : index}`;
  return pair(key, random.once(12) ? random.below(20) : type, value(random, type));
}

function fields(random: Random): Uint8Array {
  const pairs = [
    ARCHITECTURE,
    ...Array.from({ length: random.below(4) }, (_, i) => i)
      .map((index) => randomPair(random, index)),
  ];
  const infos: Field[] = [];
  let offset = 0;
  for (let index = random.below(4); index >= 0; index--) {
    const type = random.pick(GGUF_TYPES);
    const dimensions = [type.elements * (1 + random.below(2)), 1 + random.below(3)];
    const size = dimensions[0] / type.elements * dimensions[1] * type.bytes;
    if (random.once(12)) dimensions.push(Number(random.pick(COUNTS)) % 2 ** 53);
    const said = random.once(12) ? random.pick(COUNTS) : offset;
    const rank = random.once(16) ? random.below(9) : dimensions.length;
    const id = random.once(16) ? random.below(50) : type.id;
    infos.push(info({ name: text(`t${index}`), type: id, dimensions, rank, offset: said }));
    offset += Math.ceil(size / 32) * 32;
  }
  return ggufFile({
    pairs,
    infos,
    data: offset,
    ...(random.once(12) ? { tensorCount: random.pick(COUNTS) } : {}),
    ...(random.once(12) ? { pairCount: random.pick(COUNTS) } : {}),
    ...(random.once(20) ? { version: random.below(5) } : {}),
  });
}

const SEED = serializeGguf([
  { name: "layer.weight", type: "Q4_K", shape: [2, 256], data: new Uint8Array(288) },
  { name: "layer.bias", type: "F32", shape: [4], data: new Uint8Array(16) },
], [
  ["general.architecture", { type: "string", value: "flux" }],
  ["names", { type: "array", itemType: "string", count: 2, value: ["a", "b"] }],
  ["limit", { type: "uint64", value: 7n }],
]);

function mutant(random: Random): Uint8Array {
  let file = random.once(3) ? SEED : fields(random);
  const changes = file === SEED ? 1 + random.below(3) : random.below(2);
  for (let i = 0; i < changes; i++) file = mutateHeader(random, file);
  return file;
}

/** Half of the changes go into the first bytes, where the counts and sizes are. */
function mutateHeader(random: Random, file: Uint8Array): Uint8Array {
  if (random.once(2)) return mutateBytes(random, file);
  const head = file.subarray(0, 8 * random.below(24));
  return join(mutateBytes(random, head), file.subarray(head.length));
}
