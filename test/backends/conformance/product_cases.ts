/** matmul and conv2d: odd sizes, every stride form, asymmetric padding, stride 2, upsampling. */

import type { Activation } from "../../../src/ops/op_table.ts";
import type { Tensor } from "../../../src/ops/graph.ts";
import { type ConformanceCase, floats, type OperandRounding, writeTo } from "./cases.ts";
import * as evaluate from "./evaluator.ts";
import { PATTERNS, Random, randomValues } from "./random.ts";
import { denseWeight, TestWeights } from "./weights.ts";
import * as virtual from "./virtual_array.ts";

const SIZES = [1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 33, 64, 65];

/** How a matmul operand [batch, rows, columns] lies in its input. */
const LAYOUTS = ["plain", "transposed", "heads", "part", "repeated"] as const;
type Layout = typeof LAYOUTS[number];

/** All cases of matmul. */
export function matmulCases(): ConformanceCase[] {
  return LAYOUTS.flatMap((left, l) =>
    LAYOUTS.flatMap((right, r) =>
      Array.from({ length: 5 }, (_, i) => matmulCase(left, right, 40000 + 100 * l + 10 * r + i))
    )
  );
}

function matmulCase(left: Layout, right: Layout, seed: number): ConformanceCase {
  const random = new Random(seed);
  const [batch, m, n, k] = [random.integer(1, 3), ...[0, 0, 0].map(() => random.pick(SIZES))];
  const scale = random.pick([1, 0.125, 0.1767766952966369]);
  const pattern = random.pick(PATTERNS);
  const a = operand(random, left, [batch, m, k], pattern);
  const b = operand(random, right, [batch, n, k], pattern);
  const strided = random.uniform() < 0.5;
  return {
    name: `[${batch}, ${m}, ${k}] ${left} by [${batch}, ${n}, ${k}] ${right}, ${pattern}` +
      `${strided ? ", strided output" : ""}, seed ${seed}`,
    op: "matmul",
    budget: "matmul",
    inputs: { a: floats(a.values, a.shape), b: floats(b.values, b.shape) },
    build: (graph, inputs) => {
      const operands = [a.see(inputs.a), b.see(inputs.b)];
      if (!strided) {
        return graph.add("matmul", { scale }, operands, graph.allocate([batch, m, n]));
      }
      const view = graph.allocate([m, batch, n]).permute([1, 0, 2]);
      graph.add("matmul", { scale }, operands, view);
      return graph.add("copy", {}, [view], graph.allocate([batch, m, n]));
    },
    expected: () => {
      const out: number[] = [];
      for (let i = 0; i < batch; i++) {
        const part = evaluate.product(
          { rows: m, columns: k, data: a.expected.subarray(i * m * k, (i + 1) * m * k) },
          { rows: n, columns: k, data: b.expected.subarray(i * n * k, (i + 1) * n * k) },
        );
        out.push(...part.map((value) => scale * value));
      }
      return out;
    },
  };
}

function operand(
  random: Random,
  layout: Layout,
  [batch, rows, columns]: readonly [number, number, number],
  pattern: typeof PATTERNS[number],
) {
  const shape = {
    plain: [batch, rows, columns],
    transposed: [batch, columns, rows],
    heads: [rows, batch, columns],
    part: [batch, rows, columns + 3],
    repeated: [1, rows, columns],
  }[layout];
  const count = shape.reduce((product, size) => product * size, 1);
  const values = randomValues(random, count, shape[2], pattern);
  const array = virtual.fromValues(values, shape);
  const [expected, see] = ({
    plain: [array, (x: Tensor) => x],
    transposed: [virtual.permute(array, [0, 2, 1]), (x: Tensor) => x.permute([0, 2, 1])],
    heads: [virtual.permute(array, [1, 0, 2]), (x: Tensor) => x.permute([1, 0, 2])],
    part: [virtual.slice(array, 2, 2, columns + 2), (x: Tensor) => x.slice(2, 2, columns + 2)],
    repeated: [
      virtual.broadcastTo(array, [batch, rows, columns]),
      (x: Tensor) => x.broadcastTo([batch, rows, columns]),
    ],
  } as const)[layout];
  return { values, shape, see, expected: virtual.toValues(expected) };
}

interface ConvolutionShape {
  readonly size: readonly [number, number];
  readonly channels: readonly [number, number];
  readonly kernel: number;
  readonly stride: number;
  readonly padding: readonly [number, number, number, number];
  readonly upsample: 1 | 2;
}

const CONVOLUTIONS: readonly ConvolutionShape[] = [
  // the autoencoder's own: 3x3 "same", its downsampler, its upsampler, 1x1
  { size: [8, 8], channels: [16, 16], kernel: 3, stride: 1, padding: [1, 1, 1, 1], upsample: 1 },
  { size: [7, 9], channels: [5, 7], kernel: 3, stride: 1, padding: [1, 1, 1, 1], upsample: 1 },
  { size: [9, 8], channels: [4, 6], kernel: 3, stride: 2, padding: [0, 0, 1, 1], upsample: 1 },
  { size: [8, 9], channels: [16, 17], kernel: 3, stride: 2, padding: [0, 0, 1, 1], upsample: 1 },
  { size: [4, 5], channels: [8, 9], kernel: 3, stride: 1, padding: [1, 1, 1, 1], upsample: 2 },
  { size: [6, 6], channels: [16, 32], kernel: 1, stride: 1, padding: [0, 0, 0, 0], upsample: 1 },
  { size: [5, 17], channels: [3, 13], kernel: 1, stride: 1, padding: [0, 0, 0, 0], upsample: 1 },
  // enlarged: blocks of k that cut the channels, one pixel, several tiles; other paddings
  { size: [13, 7], channels: [70, 31], kernel: 3, stride: 1, padding: [1, 1, 1, 1], upsample: 2 },
  { size: [1, 1], channels: [3, 2], kernel: 3, stride: 1, padding: [1, 1, 1, 1], upsample: 2 },
  { size: [40, 41], channels: [4, 5], kernel: 3, stride: 1, padding: [1, 1, 1, 1], upsample: 2 },
  { size: [5, 6], channels: [3, 4], kernel: 3, stride: 1, padding: [2, 1, 0, 1], upsample: 2 },
  // one pixel, one channel, one row
  { size: [1, 1], channels: [1, 1], kernel: 1, stride: 1, padding: [0, 0, 0, 0], upsample: 1 },
  { size: [1, 1], channels: [3, 2], kernel: 3, stride: 1, padding: [1, 1, 1, 1], upsample: 1 },
  { size: [1, 31], channels: [2, 3], kernel: 3, stride: 1, padding: [1, 1, 1, 1], upsample: 1 },
  // odd paddings, strides, kernels
  { size: [6, 7], channels: [3, 4], kernel: 3, stride: 1, padding: [2, 0, 1, 3], upsample: 1 },
  { size: [9, 10], channels: [4, 5], kernel: 3, stride: 2, padding: [1, 1, 1, 1], upsample: 2 },
  { size: [7, 7], channels: [2, 8], kernel: 5, stride: 2, padding: [2, 2, 2, 2], upsample: 1 },
  { size: [8, 8], channels: [3, 8], kernel: 2, stride: 2, padding: [0, 0, 0, 0], upsample: 1 },
  { size: [17, 33], channels: [33, 3], kernel: 3, stride: 1, padding: [1, 1, 1, 1], upsample: 1 },
  { size: [16, 16], channels: [65, 31], kernel: 3, stride: 1, padding: [1, 1, 1, 1], upsample: 1 },
  // patches of 4 x 4: even and odd sizes, one row, one column, none and uneven padding; the least count of patches
  // and one fewer; two blocks of k, two parts of the output channels, several tiles
  { size: [12, 11], channels: [16, 16], kernel: 3, stride: 1, padding: [1, 1, 1, 1], upsample: 1 },
  { size: [13, 15], channels: [36, 9], kernel: 3, stride: 1, padding: [1, 1, 1, 1], upsample: 1 },
  { size: [1, 79], channels: [4, 3], kernel: 3, stride: 1, padding: [1, 1, 1, 1], upsample: 1 },
  { size: [65, 1], channels: [8, 5], kernel: 3, stride: 1, padding: [1, 1, 1, 1], upsample: 1 },
  { size: [13, 14], channels: [12, 8], kernel: 3, stride: 1, padding: [0, 0, 0, 0], upsample: 1 },
  { size: [9, 14], channels: [4, 10], kernel: 3, stride: 1, padding: [2, 0, 1, 3], upsample: 1 },
  { size: [8, 16], channels: [8, 1], kernel: 3, stride: 1, padding: [1, 1, 1, 1], upsample: 1 },
  { size: [2, 62], channels: [8, 1], kernel: 3, stride: 1, padding: [1, 1, 1, 1], upsample: 1 },
  { size: [12, 12], channels: [260, 17], kernel: 3, stride: 1, padding: [1, 1, 1, 1], upsample: 1 },
  { size: [12, 12], channels: [8, 260], kernel: 3, stride: 1, padding: [1, 1, 1, 1], upsample: 1 },
  { size: [41, 40], channels: [20, 31], kernel: 3, stride: 1, padding: [1, 1, 1, 1], upsample: 1 },
  // the same of enlarged pictures: what is a copy of what depends on the padding
  { size: [7, 9], channels: [36, 9], kernel: 3, stride: 1, padding: [1, 1, 1, 1], upsample: 2 },
  { size: [7, 8], channels: [8, 5], kernel: 3, stride: 1, padding: [1, 1, 0, 2], upsample: 2 },
  { size: [7, 8], channels: [8, 5], kernel: 3, stride: 1, padding: [2, 1, 1, 1], upsample: 2 },
  { size: [7, 8], channels: [8, 5], kernel: 3, stride: 1, padding: [1, 0, 1, 1], upsample: 2 },
  { size: [6, 6], channels: [260, 17], kernel: 3, stride: 1, padding: [1, 1, 1, 1], upsample: 2 },
];

/** What a library's convolutions in 16 bits do not cover: pictures that are enlarged by words of 32 bits. */
function isOdd({ channels, upsample }: ConvolutionShape): boolean {
  return upsample > 1 && channels[0] % 2 !== 0;
}

/** All cases of conv2d; with a rounding to 16 bits only those that it changes. */
export function conv2dCases(rounding?: OperandRounding): ConformanceCase[] {
  return CONVOLUTIONS.flatMap((shape, s) =>
    rounding?.largest !== undefined && isOdd(shape) ? [] : ([
      { activation: "identity", bias: false, residual: false },
      { activation: "silu", bias: true, residual: false },
      { activation: "identity", bias: true, residual: true },
    ] as const).map((ending, e) => convolutionCase(shape, ending, 50000 + 10 * s + e, rounding))
  );
}

function convolutionCase(
  shape: ConvolutionShape,
  ending: { activation: Activation; bias: boolean; residual: boolean },
  seed: number,
  rounding?: OperandRounding,
): ConformanceCase {
  const random = new Random(seed);
  const { size: [height, width], channels: [channels, out], ...rest } = shape;
  const { kernel, stride, padding, upsample } = rest;
  const attributes = { ...rest, activation: ending.activation };
  const outHeight = Math.floor((height * upsample + padding[0] + padding[2] - kernel) / stride) + 1;
  const outWidth = Math.floor((width * upsample + padding[1] + padding[3] - kernel) / stride) + 1;
  const pattern = random.pick(PATTERNS);
  const x = randomValues(random, height * width * channels, channels, pattern);
  const residual = randomValues(random, outHeight * outWidth * out, out);
  const isPart = seed % 3 === 2; // x and the output are channels of wider pictures
  const weights = new TestWeights();
  const weight = denseWeight(random, "bfloat16", [out, channels, kernel, kernel]);
  weights.add("w", weight);
  const bias = weights.add("b", denseWeight(random, "float32", [out]));
  const outShape = [outHeight, outWidth, out];
  return {
    name: `[${height}, ${width}, ${channels}] to ${out}, kernel ${kernel}, stride ${stride}, ` +
      `padding [${padding}], upsample ${upsample}, ${ending.activation}` +
      `${ending.bias ? " + bias" : ""}${ending.residual ? " + residual" : ""}, ${pattern}` +
      `${isPart ? ", parts" : ""}`,
    op: "conv2d",
    budget: rounding?.budget ?? "conv2d",
    magnitude: ending.activation === "identity" ? 0 : 1,
    inputs: {
      x: isPart ? besideOthers(x, height, width, channels) : floats(x, [height, width, channels]),
      ...ending.residual ? { residual: floats(residual, outShape) } : {},
    },
    weights,
    build: (graph, inputs) => {
      const w = graph.weight("w", [out, channels, kernel, kernel], "convolution");
      const b = ending.bias ? graph.weight("b", [out]) : null;
      let r: Tensor | null = null; // a copy, so that the op may write over it
      if (inputs.residual) {
        r = graph.add("copy", {}, [inputs.residual], graph.allocate(outShape));
      }
      const seen = isPart ? inputs.x.slice(2, 1, channels + 1) : inputs.x;
      return writeTo(graph, outShape, isPart, (output) => {
        graph.add("conv2d", attributes, [seen, w, b, r], output);
      });
    },
    expected: () => {
      const rounded = (values: ArrayLike<number>) =>
        rounding ? Float64Array.from(values).map(rounding.round) : values;
      const image = { height, width, channels, data: rounded(x) };
      const { largest = Infinity } = rounding ?? {};
      const sums = evaluate.convolution(image, rounded(weight.values), out, attributes)
        .map((sum) => Math.abs(sum) > largest ? Math.sign(sum) * Infinity : sum);
      return evaluate.finish(sums, out, {
        activation: ending.activation,
        bias: ending.bias ? bias.values : undefined,
        residual: ending.residual ? residual : undefined,
      });
    },
  };
}

/** A picture with one channel before and two behind. */
function besideOthers(x: Float32Array, height: number, width: number, channels: number) {
  const wide = new Float32Array(height * width * (channels + 3)).fill(55);
  for (let pixel = 0; pixel < height * width; pixel++) {
    const own = x.subarray(pixel * channels, (pixel + 1) * channels);
    wide.set(own, pixel * (channels + 3) + 1);
  }
  return floats(wide, [height, width, channels + 3]);
}
