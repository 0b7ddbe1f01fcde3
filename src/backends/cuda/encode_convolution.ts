/** Encodes conv2d: by cuDNN where it can, by a kernel of our own where it cannot. */

import type { AddressedView } from "../operand_view.ts";
import { checkConvolution } from "../step_checks.ts";
import { type Band, convolutionBands } from "./convolution_bands.ts";
import { type BandInput, bandInput, type ConvolutionInput } from "./convolution_input.ts";
import type { CudaStep, EncodedWeight } from "./cuda_step.ts";
import type { ConvolutionProblem, DnnLibrary, PreparedDnn } from "./dnn_problem.ts";
import { launchDequantize } from "./encode_elements.ts";
import { workspaceBytes } from "./library_product.ts";
import { alignmentOf } from "./matmul_problem.ts";
import { OPERAND_BYTES, type OperandType, operandType } from "./matmul_precision.ts";
import { address, integers } from "./parameters.ts";
import { launchEnd, type PlainRows, scratchRows } from "./plain_rows.ts";
import { endOfRows, endParameters, type ProductEnd, productEnd } from "./product_end.ts";
import { tiles } from "./tiles.ts";

/** Bytes of scratch for a band's input and output: they should stay in the second-level cache. */
const BAND_BYTES = 32 * 1024 * 1024;

/** What such a workspace may take beside the numbers themselves. */
const TRANSPOSED_SLACK = 64 * 1024;

/** conv2d: x [height, width, channels], weight [out, kernel, kernel, channels] -> output. */
export function encodeConv2d(step: CudaStep): void {
  if (step.step.op !== "conv2d") return;
  const { attributes } = step.step;
  const x = step.view(0);
  const weight = step.weight(1);
  const output = step.output();
  checkConvolution(attributes, x, weight, output);
  const end = productEnd(
    step,
    step.outputMatrix(),
    { bias: 2, residual: 3 },
    attributes.activation,
  );
  if (convolveByLibrary(step, x, weight, end)) return;
  const { kernel, stride, padding, upsample } = attributes;
  const [outHeight, outWidth, outChannels] = output.shape as [number, number, number];
  step.launch("conv2d", tiles(outHeight * outWidth, outChannels), [
    address(x.address),
    ...endParameters(end),
    ...weight.descriptor,
    ...integers(outHeight, outWidth, outChannels, ...x.shape),
    ...integers(x.strides[0]!, x.strides[1]!, kernel, stride, padding[0], padding[1], upsample, 0),
  ]);
}

/** Band by band, with the weight made plain first. False where the library does not do one of them. */
function convolveByLibrary(
  step: CudaStep,
  x: AddressedView,
  weight: EncodedWeight,
  end: ProductEnd,
): boolean {
  const { dnn, precision } = step.products;
  const type = operandType(precision);
  if (dnn === null || step.step.op !== "conv2d") return false;
  const input = bandInput(x, step.step.attributes.upsample, type);
  if (input === null) return false;
  const convolution = new Convolution(step, input, weight, end, type);
  const prepared = convolution.prepare(dnn);
  if (!prepared) return false;
  convolution.launch(prepared);
  return true;
}

/** One convolution, its bands and its scratch. */
class Convolution {
  readonly #step: CudaStep;
  readonly #input: BandInput;
  readonly #end: ProductEnd;
  readonly #type: OperandType;
  readonly #weight: EncodedWeight;
  readonly #plainWeight: number;
  readonly #inputs: readonly ConvolutionInput[];
  readonly #bands: readonly Band[];
  /** Sums of one band, or null where the output takes them. */
  readonly #sums: PlainRows | null;
  readonly #workspace: number;
  readonly #workspaceBytes: number;
  readonly #width: number;

  /** Takes its scratch, which is the same whatever the library can do, so that plans know it. */
  constructor(
    step: CudaStep,
    input: BandInput,
    weight: EncodedWeight,
    end: ProductEnd,
    type: OperandType,
  ) {
    this.#step = step;
    this.#input = input;
    this.#weight = weight;
    this.#end = end;
    this.#type = type;
    const [height, width] = step.output().shape as [number, number];
    this.#width = width;
    const { columns } = end.output;
    // Sums of 16 bits are widened by the end; the output may lie where the residual does.
    const hasSums = type !== "float32" || end.residual[0] !== 0;
    const sumBytes = hasSums ? OPERAND_BYTES[type] * width * columns : 0;
    this.#bands = this.#split(height, sumBytes);
    this.#inputs = input.take(step, this.#bands);
    const most = Math.max(...this.#bands.map(({ count }) => count)) * width;
    this.#sums = hasSums ? scratchRows(step, [most, columns], type) : null;
    this.#plainWeight = weight.plain?.type === type && weight.plain.stride === weight.columns
      ? weight.plain.address
      : step.scratch(weight.rows * weight.columns * OPERAND_BYTES[type]);
    const sumsBytes = 4 * most * columns;
    this.#workspaceBytes = Math.max(workspaceBytes(sumsBytes), this.#transposedBytes(sumsBytes));
    this.#workspace = step.scratch(this.#workspaceBytes);
  }

  /** All bands made ready, or null. */
  prepare(dnn: DnnLibrary): PreparedDnn[] | null {
    const prepared: PreparedDnn[] = [];
    for (const index of this.#bands.keys()) {
      const found = dnn.prepare(this.#problem(index));
      if (!found) return null;
      prepared.push(found);
    }
    return prepared;
  }

  /** Weight, then each band: its input, the convolution, its end. */
  launch(prepared: readonly PreparedDnn[]): void {
    const weight = this.#weight;
    if (weight.plain?.address !== this.#plainWeight) {
      const place = [this.#plainWeight, weight.columns] as const;
      launchDequantize(this.#step, weight, [0, weight.rows], place, this.#type);
    }
    this.#bands.forEach((band, index) => {
      this.#input.launch(this.#step, this.#inputs[index]!);
      const sums = this.#sumsOf(band);
      this.#step.launchDnn(prepared[index]!, {
        operands: [this.#inputs[index]!.address, this.#plainWeight, sums.address],
        workspace: this.#workspace,
      });
      this.#launchEnd(sums, band);
    });
  }

  #split(height: number, sumBytes: number): Band[] {
    const { kernel, stride, padding } = this.#attributes();
    const ownBytes = this.#input.rowBytes * stride + sumBytes;
    const rowBytes = ownBytes + (this.#isExact ? this.#plainRowBytes(stride) : 0);
    const most = rowBytes === 0 ? height : Math.floor(BAND_BYTES / rowBytes);
    const heights = { input: this.#input.height, output: height, kernel, stride, top: padding[0] };
    return convolutionBands(heights, most);
  }

  /** In float32 without TF32, cuDNN brings channels apart and together again in its workspace. */
  get #isExact(): boolean {
    return this.#step.products.precision === "float32";
  }

  /** Bytes of a row of the output and of the rows of the input under it. */
  #plainRowBytes(stride: number): number {
    const { width, channels } = this.#input;
    return 4 * (stride * width * channels + this.#width * this.#end.output.columns);
  }

  /** Input, weight and output of the highest band once more, each begun on a round address. */
  #transposedBytes(sumBytes: number): number {
    if (!this.#isExact) return 0;
    const { rows, columns } = this.#weight;
    const inputs = this.#inputs.map(({ layout }) => layout.height * layout.width * layout.channels);
    return 4 * (Math.max(...inputs) + rows * columns) + sumBytes + TRANSPOSED_SLACK;
  }

  #problem(index: number): ConvolutionProblem {
    const { kernel, stride, padding: [, left, , right] } = this.#attributes();
    const band = this.#bands[index]!;
    const { address, layout } = this.#inputs[index]!;
    const sums = this.#sumsOf(band);
    return {
      kind: "convolution",
      type: this.#type,
      tensorFloat32: this.#step.products.precision === "tensorfloat32",
      x: layout,
      y: {
        height: band.count,
        width: this.#width,
        channels: sums.columns,
        rowStride: this.#width * sums.stride,
        pixelStride: sums.stride,
      },
      kernel,
      stride,
      padding: [band.top, left, band.bottom, right],
      alignments: {
        x: alignmentOf(address),
        weight: alignmentOf(this.#plainWeight),
        y: alignmentOf(sums.address),
      },
      workspaceBytes: this.#workspaceBytes,
    };
  }

  /** Where a band's sums go: pixels as rows. */
  #sumsOf({ first, count }: Band): PlainRows {
    const rows = count * this.#width;
    if (this.#sums) return { ...this.#sums, rows };
    const { output } = endOfRows(this.#end, first * this.#width, rows);
    return { ...output, type: "float32" };
  }

  #launchEnd(sums: PlainRows, { first, count }: Band): void {
    const end = endOfRows(this.#end, first * this.#width, count * this.#width);
    const isDone = this.#sums === null && end.bias === 0 && end.activation === "identity";
    if (!isDone) launchEnd(this.#step, sums, end);
  }

  #attributes() {
    if (this.#step.step.op !== "conv2d") throw new TypeError("not a convolution");
    return this.#step.step.attributes;
  }
}
