/** The mutations that all fuzzers share: of JSON values, of their text, of bytes. */

import type { Random } from "./random.ts";

const NONSENSE: readonly unknown[] = [
  null,
  true,
  false,
  "",
  "0",
  "U8",
  "float32",
  "a.b",
  "x".repeat(300),
  0,
  1,
  -1,
  1.5,
  3,
  16,
  255,
  2 ** 20,
  2 ** 31,
  2 ** 32,
  2 ** 53 - 1,
  1e300,
  [],
  [0],
  [1, 2],
  [2, 1],
  [0, 0],
  [2 ** 31, 2 ** 31],
  ["a", null],
  {},
  { a: 1 },
];

/** Keys that plain objects have already. */
const KEYS = ["a", "", "__proto__", "constructor", "toString", "length", "extra"];

/** A value that is likely to be wrong anywhere; a fresh copy, because later changes may change it. */
export function nonsense(random: Random): unknown {
  return copyJson(random.pick(NONSENSE));
}

/** A deep copy of a JSON value; structuredClone takes many times longer for small ones. */
export function copyJson<Value>(value: Value): Value {
  if (typeof value !== "object" || value === null) return value;
  if (Array.isArray(value)) return value.map(copyJson) as Value;
  const copy = {};
  for (const key of Object.keys(value)) {
    setSlot({ holder: copy, key }, copyJson((value as Record<string, unknown>)[key]));
  }
  return copy as Value;
}

/** A place inside a JSON value. */
interface Slot {
  readonly holder: Record<string, unknown> | unknown[];
  readonly key: string;
}

/** Changes one place of a JSON value, which must be an object or list, where it stands. */
export function mutateJson(random: Random, value: object): void {
  const slots = slotsOf(value as Slot["holder"]);
  if (slots.length === 0) return setSlot({ holder: value as Slot["holder"], key: "a" }, 1);
  const slot = random.pick(slots);
  random.pick(SLOT_MUTATIONS)(random, slot, slots);
}

function slotsOf(holder: Slot["holder"]): Slot[] {
  return Object.entries(holder).flatMap(([key, value]) => [
    { holder, key },
    ...(typeof value === "object" && value !== null ? slotsOf(value as Slot["holder"]) : []),
  ]);
}

function getSlot({ holder, key }: Slot): unknown {
  return (holder as Record<string, unknown>)[key];
}

function setSlot({ holder, key }: Slot, value: unknown): void {
  if (Array.isArray(holder) && !/^\d+$/.test(key)) return; // which JSON has not
  // Not an assignment: `__proto__` must become a key like any other.
  const property = { value, writable: true, enumerable: true, configurable: true };
  Object.defineProperty(holder, key, property);
}

type SlotMutation = (random: Random, slot: Slot, slots: readonly Slot[]) => void;

const SLOT_MUTATIONS: readonly SlotMutation[] = [
  (random, slot) => setSlot(slot, nonsense(random)),
  (random, slot) => setSlot(slot, nudged(random, getSlot(slot))),
  (random, slot) => setSlot(slot, nudged(random, getSlot(slot))),
  (random, slot, slots) => setSlot(slot, copyJson(getSlot(random.pick(slots)))),
  (_, { holder, key }) => {
    if (Array.isArray(holder)) holder.splice(Number(key), 1);
    else delete holder[key];
  },
  (random, slot) => setSlot({ ...slot, key: random.pick(KEYS) }, getSlot(slot)),
  (random, slot) => setSlot({ ...slot, key: random.pick(KEYS) }, nonsense(random)),
  (_, slot) => setSlot(slot, [getSlot(slot)]),
  (_, slot) => setSlot(slot, { a: getSlot(slot) }),
];

/** Almost the same value. */
function nudged(random: Random, value: unknown): unknown {
  if (typeof value === "number") return value + random.below(9) - 4;
  if (typeof value === "boolean") return !value;
  if (typeof value === "string") return mutateText(random, value);
  return nonsense(random);
}

const TEXT_PARTS = [
  '"',
  "{",
  "}",
  "[",
  "]",
  ",",
  ":",
  " ",
  "\\",
  "\\u0061",
  "\\ud800",
  "0",
  "9".repeat(20),
  "-",
  ".0",
  "e5",
  "_",
  ".",
  "é",
];

/** Cuts up to two characters and puts something in their place. */
export function mutateText(random: Random, text: string): string {
  const at = random.below(text.length + 1);
  return text.slice(0, at) + random.pick(TEXT_PARTS) + text.slice(at + random.below(3));
}

/** Numbers at the edges of their widths. */
const EDGES = [0n, 1n, 0x7fn, 0x80n, 0xffn, 0xffffn, 0x7fffffffn, 0x80000000n, 0xffffffffn];
const WIDE_EDGES = [...EDGES, 1n << 53n, (1n << 63n) - 1n, 1n << 63n, (1n << 64n) - 1n];

type BytesMutation = (random: Random, bytes: Uint8Array) => Uint8Array;

const BYTES_MUTATIONS: readonly BytesMutation[] = [
  (random, bytes) => changed(bytes, (view, at) => view.setUint8(at, random.below(256)), random, 1),
  (random, bytes) =>
    changed(
      bytes,
      (view, at) => view.setUint8(at, view.getUint8(at) ^ 1 << random.below(8)),
      random,
      1,
    ),
  (random, bytes) =>
    changed(
      bytes,
      (view, at) => view.setBigUint64(at, random.pick(WIDE_EDGES), true),
      random,
      8,
    ),
  (random, bytes) =>
    changed(
      bytes,
      (view, at) => view.setUint32(at, Number(random.pick(EDGES)), true),
      random,
      4,
    ),
  (random, bytes) => bytes.slice(0, random.below(bytes.length + 1)),
  (random, bytes) => spliced(bytes, random.below(bytes.length + 1), random.below(9), random),
];

/** Changes a few bytes; the result is a copy and may have another length. */
export function mutateBytes(random: Random, bytes: Uint8Array): Uint8Array {
  return random.pick(BYTES_MUTATIONS)(random, bytes);
}

function changed(
  bytes: Uint8Array,
  change: (view: DataView, at: number) => void,
  random: Random,
  width: number,
): Uint8Array {
  const copy = bytes.slice();
  if (copy.length < width) return copy;
  change(new DataView(copy.buffer), random.below(copy.length - width + 1));
  return copy;
}

function spliced(bytes: Uint8Array, at: number, removed: number, random: Random): Uint8Array {
  const inserted = random.below(9);
  const rest = bytes.subarray(Math.min(bytes.length, at + removed));
  const result = new Uint8Array(at + inserted + rest.length);
  result.set(bytes.subarray(0, at));
  for (let index = at; index < at + inserted; index++) result[index] = random.below(256);
  result.set(rest, at + inserted);
  return result;
}
