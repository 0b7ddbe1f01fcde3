/**
 * Which float microkernel an engine runs fastest: candidates of several shapes, emitted as WebAssembly
 * here and timed in turns over panels that lie in the nearest caches.
 *
 *     deno run -A bench/microkernels.ts [--rounds 1000] [--plain] [6x8s8b 5x8l4 ...]
 *     bun bench/microkernels.ts ...
 *
 * A candidate is rows x columns, how A is read (s: load and splat; l: four rows by one load, lanes by
 * shuffles), k per round, and an o where addresses are constant offsets of loads instead of sums, or a b where
 * those of B are. `kernels-wasm/src/microkernel.rs` is 6x8s8b. The best of many short samples is printed: what other work on
 * the machine disturbs least.
 */

import process from "node:process";
import { parseArgs } from "node:util";
import { runtimeName, runtimeVersion } from "../src/runtime/system.ts";

interface Candidate {
  readonly name: string;
  readonly rows: number;
  readonly columns: number;
  readonly lanes: boolean;
  readonly unroll: number;
  /** Whose addresses are constant offsets. */
  readonly offsets: "" | "b" | "o";
}

const DEFAULTS = [
  ...[
    "6x8s1",
    "6x8s1o",
    "6x8s2",
    "6x8s4",
    "6x8s4o",
    "6x8s8",
    "6x8s8b",
    "6x8l4",
    "5x8s4",
    "5x8l1",
    "5x8l4",
  ],
  ...["4x8s4", "4x8l1", "4x8l4", "3x12s4", "3x12s8", "4x12s4", "2x16s4", "3x16s4", "6x16s4"],
];
/** k of a block, and columns of B in the cache: gemm.rs. */
const K = 256;
const COLUMNS = 192;

const { values: options, positionals } = parseArgs({
  args: process.argv.slice(2),
  allowPositionals: true,
  options: {
    rounds: { type: "string", default: "1000" },
    plain: { type: "boolean", default: false },
  },
});

function parseCandidate(name: string): Candidate {
  const found = /^(\d+)x(\d+)([sl])(\d+)([ob]?)$/.exec(name);
  if (!found) throw new Error(`Cannot read ${name}; 6x8s8b is one`);
  const [rows, columns, unroll] = [found[1], found[2], found[4]].map(Number) as number[];
  return {
    name,
    rows,
    columns,
    unroll,
    lanes: found[3] === "l",
    offsets: found[5] as Candidate["offsets"],
  };
}

type Code = readonly number[];

function leb(value: number): number[] {
  const bytes: number[] = [];
  for (;;) {
    const low = value & 127;
    value >>= 7;
    if ((value === 0 && low < 64) || (value === -1 && low >= 64)) return [...bytes, low];
    bytes.push(low | 128);
  }
}

function unsignedLeb(value: number): number[] {
  return value < 128 ? [value] : [value & 127 | 128, ...unsignedLeb(value >>> 7)];
}

const simd = (opcode: number): Code => [0xfd, ...unsignedLeb(opcode)];
const get = (local: number): Code => [0x20, local];
const set = (local: number): Code => [0x21, local];
const tee = (local: number): Code => [0x22, local];
const constant = (value: number): Code => [0x41, ...leb(value)];
const ADD: Code = [0x6a];
const MULTIPLY: Code = [0x6c];
const LOAD = simd(0);
const LOAD_SPLAT = simd(9);
const STORE = simd(11);
const F32X4_ADD = simd(0xe4);
const F32X4_MULTIPLY = simd(0xe6);
const RELAXED_MADD = simd(0x105);

function splatLane(lane: number): Code {
  return [...simd(13), ...Array.from({ length: 16 }, (_, byte) => 4 * lane + byte % 4)];
}

// Locals of a kernel: strip, panel, count, c, stride in bytes, where the loop ends; then vectors.
const [STRIP, PANEL, COUNT, C, STRIDE, END, VECTORS] = [0, 1, 2, 3, 4, 5, 6];

/** C [rows, columns] += strip [count][rows] x panel [count][columns]. */
function emitKernel(candidate: Candidate): Code {
  const { rows, columns, lanes, unroll, offsets } = candidate;
  const width = columns / 4;
  const sum = (row: number, vector: number) => VECTORS + row * width + vector;
  const b = (vector: number) => sum(rows, vector);
  const [a, splat] = [b(width), b(width) + 1];
  const read = (base: number, offset: number, load: Code): Code =>
    offsets === "o" || (offsets === "b" && base === PANEL) || offset === 0
      ? [...get(base), ...load, 0, ...unsignedLeb(offset)]
      : [...get(base), ...constant(offset), ...ADD, ...load, 0, 0];
  const madd = (row: number, vector: number): Code =>
    options.plain
      ? [
        ...get(splat),
        ...get(b(vector)),
        ...F32X4_MULTIPLY,
        ...get(sum(row, vector)),
        ...F32X4_ADD,
      ]
      : [...get(splat), ...get(b(vector)), ...get(sum(row, vector)), ...RELAXED_MADD];
  const code: number[] = [];
  const emit = (...parts: Code[]) => parts.forEach((part) => code.push(...part));
  emit(get(STRIP), get(COUNT), constant(4 * rows), MULTIPLY, ADD, set(END), [0x03, 0x40]);
  for (let k = 0; k < unroll; k++) {
    for (let row = 0; row < rows; row++) {
      const at = (k * rows + row) * 4;
      if (lanes && row < (rows & ~3)) {
        if (row % 4 === 0) emit(read(STRIP, at, LOAD), set(a));
        emit(get(a), get(a), splatLane(row % 4), set(splat));
      } else {
        emit(read(STRIP, at, LOAD_SPLAT), set(splat));
      }
      for (let vector = 0; vector < width; vector++) {
        if (row === 0) emit(read(PANEL, (k * columns + 4 * vector) * 4, LOAD), set(b(vector)));
        emit(madd(row, vector), set(sum(row, vector)));
      }
    }
  }
  emit(get(PANEL), constant(unroll * columns * 4), ADD, set(PANEL));
  emit(get(STRIP), constant(unroll * rows * 4), ADD, tee(STRIP), get(END), [0x47, 0x0d, 0, 0x0b]);
  for (let row = 0; row < rows; row++) {
    for (let vector = 0; vector < width; vector++) {
      emit(get(C), get(C), LOAD, [0, 16 * vector], get(sum(row, vector)), F32X4_ADD);
      emit(STORE, [0, 16 * vector]);
    }
    emit(get(C), get(STRIDE), ADD, set(C));
  }
  return [1, ...unsignedLeb(splat - VECTORS + 1), 0x7b, ...code, 0x0b];
}

/** Calls a kernel for one panel after another, so that the call from JavaScript weighs nothing. */
function emitDriver(kernel: number, { columns }: Candidate): Code {
  const panels = 5;
  return [
    ...[0, 0x03, 0x40, ...get(STRIP), ...get(PANEL), ...get(COUNT), ...get(C), ...get(STRIDE)],
    ...[...get(panels), 0x10, ...unsignedLeb(kernel)],
    ...[...get(PANEL), ...constant(K * columns * 4), ...ADD, ...set(PANEL)],
    ...[...get(C), ...constant(columns * 4), ...ADD, ...set(C)],
    ...[...get(panels), ...constant(-1), ...ADD, ...tee(panels), 0x0d, 0, 0x0b, 0x0b],
  ];
}

function section(id: number, bytes: Code): Code {
  return [id, ...unsignedLeb(bytes.length), ...bytes];
}

function text(value: string): Code {
  return [value.length, ...new TextEncoder().encode(value)];
}

/** One module with all candidates; `d0`, `d1` ... are their drivers. */
function emitModule(candidates: readonly Candidate[]): Uint8Array<ArrayBuffer> {
  const count = candidates.length;
  const bodies = [...candidates.map(emitKernel), ...candidates.map((c, i) => emitDriver(i, c))];
  // The sixth parameter of a driver is its count of panels; a kernel uses the local for its end.
  const type = [1, 0x60, 6, 0x7f, 0x7f, 0x7f, 0x7f, 0x7f, 0x7f, 0];
  const memory = [1, ...text("env"), ...text("memory"), 2, 3, 17, ...unsignedLeb(65536)];
  const exported = candidates.flatMap((_, i) => [...text(`d${i}`), 0, ...unsignedLeb(count + i)]);
  const code = bodies.flatMap((body) => [...unsignedLeb(body.length), ...body]);
  return Uint8Array.from([
    ...[0, 0x61, 0x73, 0x6d, 1, 0, 0, 0],
    ...section(1, type),
    ...section(2, memory),
    ...section(3, [...unsignedLeb(2 * count), ...bodies.map(() => 0)]),
    ...section(7, [...unsignedLeb(count), ...exported]),
    ...section(10, [...unsignedLeb(2 * count), ...code]),
  ]);
}

type Driver = (
  strip: number,
  panels: number,
  count: number,
  c: number,
  stride: number,
  panelCount: number,
) => void;

const candidates = (positionals.length > 0 ? positionals : DEFAULTS).map(parseCandidate);
const memory = new WebAssembly.Memory({ initial: 64, maximum: 65536, shared: true });
const floats = new Float32Array(memory.buffer);
for (let i = 0; i < floats.length; i++) floats[i] = Math.random() - 0.5;
const module = await WebAssembly.compile(emitModule(candidates));
const { exports } = await WebAssembly.instantiate(module, { env: { memory } });
const [strip, panels] = [65536, 131072];
const c = panels + 2 * COLUMNS * K * 4;

/** GFLOP/s of one sample: some tens of microseconds. */
function sample({ rows, columns }: Candidate, index: number): number {
  const driver = exports[`d${index}`] as Driver;
  const start = performance.now();
  for (let i = 0; i < 2; i++) driver(strip, panels, K, c, COLUMNS * 4, COLUMNS / columns);
  return 4 * rows * COLUMNS * K / (performance.now() - start) / 1e6;
}

const best = candidates.map(() => 0);
for (let round = 0; round < Number(options.rounds); round++) {
  candidates.forEach((candidate, i) => best[i] = Math.max(best[i]!, sample(candidate, i)));
}
const build = options.plain ? "plain" : "relaxed";
console.log(`${runtimeName()} ${runtimeVersion()}, ${build} SIMD, GFLOP/s`);
candidates
  .map(({ name }, i) => ({ name, rate: best[i]! }))
  .sort((x, y) => y.rate - x.rate)
  .forEach(({ name, rate }) => console.log(`${name.padEnd(8)} ${rate.toFixed(1)}`));
