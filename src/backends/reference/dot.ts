/**
 * The one inner loop of matmul, linear and conv2d: dot products of a row with four columns at a time,
 * in float64. Four independent sums keep the processor busy; each sum runs in index order, so the
 * result does not depend on the blocking.
 */

/** A matrix of vectors: vector `i` starts at `offset + i * stride`, its elements `step` apart. */
export interface Vectors {
  readonly data: Float32Array;
  readonly offset: number;
  readonly count: number;
  readonly stride: number;
  readonly step: number;
}

/** Receives one finished sum. */
export type SumSink = (row: number, column: number, sum: number) => void;

/** Gives `sink` every a[row] . b[column], of vectors of `length`. */
export function dotProducts(a: Vectors, b: Vectors, length: number, sink: SumSink): void {
  const sums = new Float64Array(4);
  const blocked = b.count - b.count % 4;
  for (let column = 0; column < blocked; column += 4) {
    for (let row = 0; row < a.count; row++) {
      dotFour(a, row, b, column, length, sums);
      for (let lane = 0; lane < 4; lane++) sink(row, column + lane, sums[lane]);
    }
  }
  for (let column = blocked; column < b.count; column++) {
    for (let row = 0; row < a.count; row++) sink(row, column, dotOne(a, row, b, column, length));
  }
}

function dotFour(
  a: Vectors,
  row: number,
  b: Vectors,
  column: number,
  length: number,
  sums: Float64Array,
): void {
  const x = a.data, w = b.data, xStep = a.step, wStep = b.step;
  let x0 = a.offset + row * a.stride;
  let w0 = b.offset + column * b.stride;
  let w1 = w0 + b.stride, w2 = w1 + b.stride, w3 = w2 + b.stride;
  let sum0 = 0, sum1 = 0, sum2 = 0, sum3 = 0;
  for (let i = 0; i < length; i++) {
    const value = x[x0];
    sum0 += value * w[w0];
    sum1 += value * w[w1];
    sum2 += value * w[w2];
    sum3 += value * w[w3];
    x0 += xStep, w0 += wStep, w1 += wStep, w2 += wStep, w3 += wStep;
  }
  sums[0] = sum0, sums[1] = sum1, sums[2] = sum2, sums[3] = sum3;
}

function dotOne(a: Vectors, row: number, b: Vectors, column: number, length: number): number {
  const aStart = a.offset + row * a.stride, bStart = b.offset + column * b.stride;
  let sum = 0;
  for (let i = 0; i < length; i++) {
    sum += a.data[aStart + i * a.step] * b.data[bStart + i * b.step];
  }
  return sum;
}
