/** Tiny products of codes whose results are known exactly: whether a library can be trusted with a kind of them. */

import { HostTensor } from "../../tensor/host_tensor.ts";
import { aligned } from "../alignment.ts";
import type { MatmulAddresses, MatmulProblem, ProductScaling } from "./matmul_problem.ts";

/** Rows of x, rows of the weight, depth: what tensor cores take, more than one tile of them. */
const [M, N, K] = [80, 48, 96];
const WORKSPACE_BYTES = 64 * 1024;
/** Operands lie on what the library asks about at most. */
const ALIGNMENT = 256;
/** e4m3 of 0 to 4; the highest bit is the sign. */
const FLOAT8_CODES = [0x00, 0x38, 0x40, 0x44, 0x48] as const;
const SIGN = 0x80;

/** Operands that are codes. */
export type CodedOperands = "int8" | "float8_e4m3fn";

/** A product, the memory it lies in, and what is wrong with that after it ran. */
export interface KnownProduct {
  readonly problem: MatmulProblem;
  readonly memory: Uint8Array<ArrayBuffer>;
  addresses(start: number): MatmulAddresses;
  /** The first number of the result that is not the known one; null where all of them are. */
  mistake(memory: Uint8Array): { readonly found: number; readonly expected: number } | null;
}

/**
 * All int8 codes, or small whole numbers of float8 whose sums any unit holds; scales are powers of two, a bias whole
 * numbers of bfloat16.
 */
export function knownProduct(
  operands: CodedOperands,
  scaling: ProductScaling,
  hasBias = false,
): KnownProduct {
  const isInt8 = operands === "int8";
  const value = isInt8 ? int8Value : float8Value;
  const places = placesOf();
  const memory = new Uint8Array(new ArrayBuffer(places.workspace + WORKSPACE_BYTES)).fill(0xff);
  writeCodes(memory, places.x, M, (row, k) => value(row, 7 * k), isInt8);
  writeCodes(memory, places.weight, N, (row, k) => value(5 * row, 11 * k), isInt8);
  const scales = { x: scalesOf(scaling, M, -1), weight: scalesOf(scaling, N, -2) };
  new Float32Array(memory.buffer, places.xScales, M).set(scales.x);
  new Float32Array(memory.buffer, places.weightScales, N).set(scales.weight);
  const bias = Float32Array.from({ length: N }, (_, column) => hasBias ? column % 7 - 3 : 0);
  memory.set(HostTensor.fromFloat32(bias).cast("bfloat16").bytes, places.bias);
  return {
    problem: { ...problemOf(operands, scaling), bias: hasBias },
    memory,
    addresses: (start) => ({
      x: start + places.x,
      weight: start + places.weight,
      added: 0,
      bias: hasBias ? start + places.bias : 0,
      xScales: start + places.xScales,
      weightScales: start + places.weightScales,
      output: start + places.output,
      workspace: start + places.workspace,
    }),
    mistake(memory) {
      const Numbers = isInt8 ? Int32Array : Float32Array;
      const found = new Numbers(memory.slice(places.output, places.output + 4 * M * N).buffer);
      for (let i = 0; i < found.length; i++) {
        const row = Math.floor(i / N), column = i % N;
        let sum = 0;
        for (let k = 0; k < K; k++) sum += value(row, 7 * k) * value(5 * column, 11 * k);
        const expected = sum * scales.x[row]! * scales.weight[column]! + bias[column]!;
        if (found[i] !== expected) return { found: found[i]!, expected };
      }
      return null;
    },
  };
}

function int8Value(row: number, k: number): number {
  return (row * 13 + k) % 256 - 128;
}

function float8Value(row: number, k: number): number {
  return (row * 13 + k) % 9 - 4;
}

function placesOf() {
  let end = 0;
  const take = (bytes: number): number => {
    const start = end;
    end = Math.ceil((start + aligned(bytes)) / ALIGNMENT) * ALIGNMENT;
    return start;
  };
  return {
    x: take(M * K),
    weight: take(N * K),
    xScales: take(4 * M),
    weightScales: take(4 * N),
    bias: take(2 * N),
    output: take(4 * M * N),
    workspace: end,
  };
}

function writeCodes(
  memory: Uint8Array,
  place: number,
  rows: number,
  value: (row: number, k: number) => number,
  isInt8: boolean,
): void {
  for (let i = 0; i < rows * K; i++) {
    const number = value(Math.floor(i / K), i % K);
    const float8 = FLOAT8_CODES[Math.abs(number)]! | (number < 0 ? SIGN : 0);
    memory[place + i] = isInt8 ? number & 0xff : float8;
  }
}

/** One for each row, or the same for all; ones where there are none. */
function scalesOf(scaling: ProductScaling, count: number, exponent: number): number[] {
  return Array.from({ length: count }, (_, row) => {
    if (scaling === "none") return 1;
    return 2 ** (exponent + (scaling === "rows" ? row % 5 : 0));
  });
}

function problemOf(operands: CodedOperands, scaling: ProductScaling): MatmulProblem {
  return {
    m: M,
    n: N,
    k: K,
    operands,
    scaling,
    tensorFloat32: false,
    xStride: K,
    weightStride: K,
    outputStride: N,
    addedStride: 0,
    bias: false,
    activation: "identity",
    alignments: { x: ALIGNMENT, weight: ALIGNMENT, added: ALIGNMENT, output: ALIGNMENT },
    workspaceBytes: WORKSPACE_BYTES,
  };
}
