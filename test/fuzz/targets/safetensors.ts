/** Safetensors files whose header is almost right. */

import { parseSafetensors, SAFETENSORS_DTYPES } from "../../../src/io/safetensors.ts";
import { itemSize } from "../../../src/tensor/dtype.ts";
import { elementCount } from "../../../src/tensor/shape.ts";
import { copyJson, mutateBytes, mutateJson, mutateText, nonsense } from "../mutate.ts";
import type { Random } from "../random.ts";
import type { FuzzTarget } from "../target.ts";

/** Reads whole files. */
export const SAFETENSORS_TARGET: FuzzTarget<Uint8Array> = {
  name: "safetensors",
  make: mutant,
  size: (file) => file.length,
  run: (file) => {
    const tensors = [...parseSafetensors(file).values()];
    const total = tensors.reduce((sum, tensor) => sum + tensor.bytes.length, 0);
    if (total > file.length) throw new Error("more data than the file has");
  },
};

/** A tensor as the header spells it; any value may have been replaced by nonsense. */
interface Description {
  dtype: unknown;
  shape: unknown;
  data_offsets: unknown;
  [extra: string]: unknown;
}

/** A header as pairs, so that names may come twice. */
type Pairs = [name: string, value: unknown][];

function goodPairs(random: Random): { pairs: Pairs; dataBytes: number } {
  const pairs: Pairs = [];
  let offset = 0;
  for (let i = random.below(5); i >= 0; i--) {
    const [dtype, name] = random.pick(SAFETENSORS_DTYPES);
    const shape = Array.from({ length: random.below(4) }, () => random.below(4));
    const end = offset + elementCount(shape) * itemSize(dtype);
    pairs.push([random.pick(["a", "b", "c.d", "é", "x"]) + i, {
      dtype: name,
      shape,
      data_offsets: [offset, end],
    }]);
    offset = end;
  }
  if (random.once(2)) pairs.push(["__metadata__", { format: "pt" }]);
  return { pairs, dataBytes: offset };
}

type PairMutation = (random: Random, pairs: Pairs) => void;

const ofTensor =
  (change: (random: Random, tensor: Description) => void): PairMutation => (random, pairs) => {
    const value = random.pick(pairs)[1];
    if (typeof value === "object" && value !== null) change(random, value as Description);
  };

function nudge(random: Random, list: unknown): void {
  if (!Array.isArray(list) || list.length === 0) return;
  const at = random.below(list.length);
  list[at] = random.once(3) ? nonsense(random) : Number(list[at]) + random.below(9) - 4;
}

const DTYPES = ["U8", "F32", "BF16", "F12", "I64", "F4", 3];

const PAIR_MUTATIONS: readonly PairMutation[] = [
  ofTensor((random, tensor) => nudge(random, tensor.data_offsets)),
  ofTensor((random, tensor) => nudge(random, tensor.shape)),
  ofTensor((random, tensor) => tensor.dtype = random.pick(DTYPES)),
  ofTensor((random, tensor) => tensor[random.pick(["dtype", "shape"])] = nonsense(random)),
  ofTensor((random, tensor) => tensor.data_offsets = nonsense(random)),
  ofTensor((random, tensor) => delete tensor[random.pick(["dtype", "shape", "data_offsets"])]),
  ofTensor((random, tensor) => tensor[random.pick(["extra", "offsets"])] = nonsense(random)),
  ofTensor(mutateJson),
  (random, pairs) => pairs.push(copyJson(random.pick(pairs))),
  (random, pairs) => random.pick(pairs)[0] = random.pick(["a0", "__metadata__", "", "b1"]),
  (random, pairs) => random.pick(pairs)[0] = random.pick(["__proto__", "constructor", "\ud800"]),
  (random, pairs) => random.pick(pairs)[1] = nonsense(random),
  (random, pairs) => void pairs.splice(random.below(pairs.length), 1),
  (random, pairs) => void pairs.sort(() => random.below(3) - 1),
];

/** What is changed beside the pairs, if anything. */
const KINDS = ["pairs", "pairs", "pairs", "pairs", "text", "slack", "length", "bytes"] as const;

function mutant(random: Random): Uint8Array {
  const { pairs, dataBytes } = goodPairs(random);
  const kind = random.pick(KINDS);
  for (let i = random.below(3); i > 0 && kind === "pairs" && pairs.length > 0; i--) {
    random.pick(PAIR_MUTATIONS)(random, pairs);
  }
  const members = pairs.map((pair) => pair.map((part) => JSON.stringify(part)).join(":"));
  let text = `{${members.join(",")}}`;
  for (let i = random.below(3); i > 0 && kind === "text"; i--) text = mutateText(random, text);
  text += " ".repeat(random.below(4));
  const slack = kind === "slack" ? random.below(9) - 4 : 0;
  const file = fileOf(text, Math.max(0, dataBytes + slack));
  if (kind === "length") new DataView(file.buffer).setUint8(0, random.below(256));
  return kind === "bytes" ? mutateBytes(random, file) : file;
}

function fileOf(text: string, dataBytes: number): Uint8Array {
  const header = new TextEncoder().encode(text);
  const file = new Uint8Array(8 + header.length + dataBytes);
  new DataView(file.buffer).setBigUint64(0, BigInt(header.length), true);
  file.set(header, 8);
  return file;
}
