/**
 * What each op must give, in float64, as plain loops over numbers. It shares no code with any backend
 * and is anchored by goldens from PyTorch (test/backends/evaluator.test.ts).
 */

import type { Activation, OpAttributes } from "../../../src/ops/op_table.ts";
import { roundToEven } from "./rounded_activations.ts";

/** A row-major matrix of float64 values. */
export interface Matrix {
  readonly rows: number;
  readonly columns: number;
  readonly data: ArrayLike<number>;
}

/** tanh by its own definition. */
function tanh(x: number): number {
  const power = Math.expm1(2 * Math.abs(x));
  return Math.sign(x) * (power === Infinity ? 1 : power / (power + 2));
}

/** erf by a series of positive terms, or by the continued fraction of erfc where that converges slowly. */
export function erf(x: number): number {
  if (Math.abs(x) > 3) return Math.sign(x) * (1 - erfcFraction(Math.abs(x)));
  let term = x, sum = x;
  for (let n = 1; Math.abs(term) > 1e-20 * Math.abs(sum); n++) {
    term *= 2 * x * x / (2 * n + 1);
    sum += term;
  }
  return sum * 2 / Math.sqrt(Math.PI) * Math.exp(-x * x);
}

function erfcFraction(x: number): number {
  let fraction = x;
  for (let n = 60; n >= 1; n--) fraction = x + n / 2 / fraction;
  return Math.exp(-x * x) / fraction / Math.sqrt(Math.PI);
}

/** 0.5 (1 + erf(x / sqrt 2)), without losing its tail. */
function normalDistribution(x: number): number {
  if (x < -3 * Math.SQRT2) return erfcFraction(-x * Math.SQRT1_2) / 2;
  return 0.5 * (1 + erf(x * Math.SQRT1_2));
}

/** The activations by name. */
export function activate(kind: Activation, x: number): number {
  switch (kind) {
    case "identity":
      return x;
    case "silu":
      return x / (1 + Math.exp(-x));
    case "gelu_tanh":
      return geluTanh(x);
    case "gelu_erf":
      return x * normalDistribution(x);
    case "quick_gelu":
      return x / (1 + Math.exp(-1.702 * x));
    case "relu":
      return Math.max(0, x);
  }
}

function geluTanh(x: number): number {
  const inner = Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3);
  // 1 + tanh(u) = 2 / (1 + exp(-2 u)); the direct form cancels for u << 0.
  return inner < -1 ? x / (1 + Math.exp(-2 * inner)) : 0.5 * x * (1 + tanh(inner));
}

/** The unary op of one value. */
export function unary({ kind, multiplier, addend }: OpAttributes["unary"], x: number): number {
  if (kind === "exp") return Math.exp(x);
  if (kind === "rsqrt") return 1 / Math.sqrt(x);
  if (kind === "affine") return x * multiplier + addend;
  return activate(kind, x);
}

/** The binary op of two values. */
export function binary(kind: OpAttributes["binary"]["kind"], a: number, b: number): number {
  if (kind === "add") return a + b;
  if (kind === "subtract") return a - b;
  return kind === "multiply" ? a * b : a / b;
}

/** The reduction of one row. */
export function reduce(kind: OpAttributes["reduce"]["kind"], row: readonly number[]): number {
  if (kind === "max") return Math.max(...row);
  const sum = row.reduce((total, value) => total + value, 0);
  return kind === "sum" ? sum : sum / row.length;
}

/** a [m, k] times b [n, k] transposed. */
export function product(a: Matrix, b: Matrix): Float64Array {
  const out = new Float64Array(a.rows * b.rows);
  const x = Float64Array.from(a.data), w = Float64Array.from(b.data); // of one kind, so fast
  for (let i = 0; i < a.rows; i++) {
    for (let j = 0; j < b.rows; j++) {
      let sum = 0;
      for (let l = 0; l < a.columns; l++) sum += x[i * a.columns + l] * w[j * a.columns + l];
      out[i * b.rows + j] = sum;
    }
  }
  return out;
}

/** What a fused op does with its sums. */
export interface Epilogue {
  readonly activation: Activation;
  readonly bias?: ArrayLike<number>;
  /** [1, n] or [m, n]. */
  readonly gate?: Matrix;
  readonly residual?: ArrayLike<number>;
}

/** residual + gate * act(sums + bias). */
export function finish(sums: Float64Array, columns: number, epilogue: Epilogue): Float64Array {
  const { activation, bias, gate, residual } = epilogue;
  return sums.map((sum, index) => {
    const row = Math.floor(index / columns), column = index % columns;
    let value = activate(activation, sum + (bias ? bias[column] : 0));
    if (gate) value *= gate.data[(gate.rows === 1 ? 0 : row) * columns + column];
    return value + (residual ? residual[index] : 0);
  });
}

/** An image [height, width, channels]. */
export interface Image {
  readonly height: number;
  readonly width: number;
  readonly channels: number;
  readonly data: ArrayLike<number>;
}

/** conv2d by definition; weight [out, channels, kernel, kernel] as in the checkpoint. */
export function convolution(
  x: Image,
  weight: ArrayLike<number>,
  outChannels: number,
  attributes: Pick<OpAttributes["conv2d"], "kernel" | "stride" | "padding" | "upsample">,
): Float64Array {
  const { kernel, stride, padding: [top, left, bottom, right], upsample } = attributes;
  const height = x.height * upsample, width = x.width * upsample;
  const outHeight = Math.floor((height + top + bottom - kernel) / stride) + 1;
  const outWidth = Math.floor((width + left + right - kernel) / stride) + 1;
  const out: number[] = [];
  const pixel = (row: number, column: number, channel: number): number => {
    if (row < 0 || column < 0 || row >= height || column >= width) return 0;
    const y = Math.floor(row / upsample), along = Math.floor(column / upsample);
    return x.data[(y * x.width + along) * x.channels + channel];
  };
  for (let oy = 0; oy < outHeight; oy++) {
    for (let ox = 0; ox < outWidth; ox++) {
      for (let oc = 0; oc < outChannels; oc++) {
        let sum = 0;
        for (let c = 0; c < x.channels; c++) {
          for (let ky = 0; ky < kernel; ky++) {
            for (let kx = 0; kx < kernel; kx++) {
              const w = weight[((oc * x.channels + c) * kernel + ky) * kernel + kx];
              sum += w * pixel(oy * stride + ky - top, ox * stride + kx - left, c);
            }
          }
        }
        out.push(sum);
      }
    }
  }
  return Float64Array.from(out);
}

/** The optional operands of norm. */
export interface NormOperands {
  readonly weight?: ArrayLike<number>;
  readonly bias?: ArrayLike<number>;
  readonly scale?: Matrix;
  readonly shift?: Matrix;
}

/** norm of x [rows, columns]. */
export function norm(x: Matrix, attributes: OpAttributes["norm"], operands: NormOperands) {
  const { rows, columns, data } = x;
  const { kind, epsilon, groups, activation } = attributes;
  // The statistics' block of each element: its row, or its group of columns.
  const block = (index: number) =>
    kind === "group"
      ? Math.floor((index % columns) / (columns / groups))
      : Math.floor(index / columns);
  const count = kind === "group" ? groups : rows;
  const members = new Array<number[]>(count);
  for (let i = 0; i < count; i++) members[i] = [];
  for (let index = 0; index < rows * columns; index++) members[block(index)].push(data[index]);
  const mean = members.map((values) => kind === "rms" ? 0 : average(values));
  const variance = members.map((values, i) => average(values.map((v) => (v - mean[i]) ** 2)));
  return Float64Array.from({ length: rows * columns }, (_, index) => {
    const row = Math.floor(index / columns), column = index % columns, own = block(index);
    let value = (data[index] - mean[own]) / Math.sqrt(variance[own] + epsilon);
    value = value * (operands.weight?.[column] ?? 1) + (operands.bias?.[column] ?? 0);
    value = value * (1 + rowValue(operands.scale, row, column)) +
      rowValue(operands.shift, row, column);
    return activate(activation, value);
  });
}

/** Attention of q [queries, heads * d] over k, v [keys, heads * d]. */
export function attention(
  q: Matrix,
  k: Matrix,
  v: Matrix,
  attributes: OpAttributes["attention"],
  bias?: ArrayLike<number>,
): Float64Array {
  const { heads, scale, causal } = attributes;
  const d = q.columns / heads;
  const out = new Float64Array(q.rows * q.columns);
  const [qData, kData, vData] = [q, k, v].map((matrix) => Float64Array.from(matrix.data));
  for (let h = 0; h < heads; h++) {
    for (let i = 0; i < q.rows; i++) {
      const scores: number[] = [];
      for (let j = 0; j < k.rows; j++) {
        let dot = 0;
        for (let c = h * d; c < (h + 1) * d; c++) {
          dot += qData[i * q.columns + c] * kData[j * k.columns + c];
        }
        const masked = causal && j > i;
        scores.push(
          masked ? -Infinity : dot * scale + (bias?.[(h * q.rows + i) * k.rows + j] ?? 0),
        );
      }
      const most = Math.max(...scores);
      const powers = scores.map((score) => Math.exp(score - most));
      const total = powers.reduce((sum, power) => sum + power, 0);
      for (let c = h * d; c < (h + 1) * d; c++) {
        powers.forEach((power, j) => {
          out[i * q.columns + c] += power / total * vData[j * v.columns + c];
        });
      }
    }
  }
  return out;
}

/** RMS norm of each head, then rotation of adjacent pairs as complex numbers. */
export function headNormRope(
  x: Matrix,
  weight: ArrayLike<number>,
  epsilon: number,
  angles?: { cos: ArrayLike<number>; sin: ArrayLike<number> },
): Float64Array {
  const d = weight.length;
  const out = new Float64Array(x.rows * x.columns);
  for (let start = 0; start < out.length; start += d) {
    const head = Array.from({ length: d }, (_, i) => x.data[start + i]);
    const root = Math.sqrt(average(head.map((value) => value * value)) + epsilon);
    head.forEach((value, i) => out[start + i] = value / root * weight[i]);
    if (!angles) continue;
    const row = Math.floor(start / x.columns);
    for (let i = 0; i < d; i += 2) {
      const [a, b] = [out[start + i], out[start + i + 1]];
      const even = row * d + i;
      out[start + i] = a * angles.cos[even] - b * angles.sin[even];
      out[start + i + 1] = b * angles.cos[even + 1] + a * angles.sin[even + 1];
    }
  }
  return out;
}

/** A weight of LLM.int8(): codes -127 to 127 [n, k], and the absmax of each row. */
export interface Int8Rows {
  readonly codes: ArrayLike<number>;
  readonly rowAbsmax: ArrayLike<number>;
}

/** x weight^T as LLM.int8() computes it, element by element, with exact integer sums. */
export function llmInt8(x: Matrix, weight: Int8Rows, threshold: number): Float64Array {
  const { rows, columns: k } = x;
  const n = weight.rowAbsmax.length;
  const halves = Array.from(x.data, toFloat16);
  const isLarge = (value: number) => threshold > 0 && Math.abs(value) >= threshold;
  const isOutlier = Array.from(
    { length: k },
    (_, column) => Array.from({ length: rows }, (_, row) => halves[row * k + column]).some(isLarge),
  );
  const out = new Float64Array(rows * n);
  for (let row = 0; row < rows; row++) {
    const values = halves.slice(row * k, (row + 1) * k);
    const absmax = Math.max(0, ...values.filter((value) => !isLarge(value)).map(Math.abs));
    const codes = values.map((value, column) =>
      isOutlier[column] || absmax === 0
        ? 0
        : roundToEven(Math.fround(value * Math.fround(127 / absmax)))
    );
    for (let column = 0; column < n; column++) {
      const absmaxOfColumn = weight.rowAbsmax[column];
      let integers = 0, floating = 0;
      for (let i = 0; i < k; i++) {
        const code = weight.codes[column * k + i];
        integers += codes[i] * code;
        if (isOutlier[i]) floating += values[i] * dequantizedInt8(code, absmaxOfColumn);
      }
      out[row * n + column] = integers * absmax * absmaxOfColumn / 127 ** 2 + floating;
    }
  }
  return out;
}

/** A code times its row's absmax / 127, rounded as bitsandbytes rounds. */
function dequantizedInt8(code: number, rowAbsmax: number): number {
  return Math.fround(Math.fround(code * rowAbsmax) * Math.fround(1 / 127));
}

/** The nearest float16, ties to even, within its range. */
function toFloat16(value: number): number {
  const magnitude = Math.abs(value);
  const exponent = Math.max(-14, Math.floor(Math.log2(magnitude || 1)));
  const step = 2 ** (exponent - 10);
  return Math.sign(value) * roundToEven(magnitude / step) * step;
}

function average(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}

function rowValue(matrix: Matrix | undefined, row: number, column: number): number {
  if (!matrix) return 0;
  return matrix.data[(matrix.rows === 1 ? 0 : row) * matrix.columns + column];
}
