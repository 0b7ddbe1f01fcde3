/** The input of a convolution as a library reads it: where it lies, or rounded and upsampled band by band. */

import type { AddressedView } from "../operand_view.ts";
import type { Band } from "./convolution_bands.ts";
import type { CudaStep } from "./cuda_step.ts";
import type { PictureLayout } from "./dnn_problem.ts";
import { launchCopy } from "./encode_elements.ts";
import { OPERAND_BYTES, type OperandType } from "./matmul_precision.ts";
import { launchNarrow } from "./plain_rows.ts";

/** A band of the input: where the library finds it, and which rows of x it comes from. */
export interface ConvolutionInput {
  readonly address: number;
  readonly layout: PictureLayout;
  readonly firstRow: number;
  readonly rows: number;
}

/** How bands are made of x. */
export interface BandInput {
  /** Rows after upsampling. */
  readonly height: number;
  /** Pixels of a row after upsampling. */
  readonly width: number;
  readonly channels: number;
  /** Bytes of scratch that one of those rows takes. */
  readonly rowBytes: number;
  /** Takes scratch for the highest band, which all bands use in turn. */
  take(step: CudaStep, bands: readonly Band[]): ConvolutionInput[];
  /** Makes a band. */
  launch(step: CudaStep, input: ConvolutionInput): void;
}

/** x [height, width, channels] for operands of a type; null for a layout that the kernels do not bring there. */
export function bandInput(x: AddressedView, upsample: number, type: OperandType): BandInput | null {
  const [height, width, channels] = x.shape as [number, number, number];
  const isNarrow = type !== "float32";
  // The narrowing kernel reads rows of one stride; upsampling copies words of 32 bits.
  const pixelsAreRows = height === 1 || x.strides[0] === width * x.strides[1]!;
  if (isNarrow && !pixelsAreRows) return null;
  if (isNarrow && upsample > 1 && channels % 2 !== 0) return null;
  return new StagedInput(x, upsample, type);
}

class StagedInput implements BandInput {
  readonly height: number;
  readonly width: number;
  readonly channels: number;
  readonly rowBytes: number;
  readonly #x: AddressedView;
  readonly #upsample: number;
  readonly #type: OperandType;
  /** Bytes of a row of x in the type. */
  readonly #narrowBytes: number;
  #narrow = 0;
  #wide = 0;

  constructor(x: AddressedView, upsample: number, type: OperandType) {
    const [height, width, channels] = x.shape as [number, number, number];
    this.#x = x;
    this.#upsample = upsample;
    this.#type = type;
    this.height = height * upsample;
    this.width = width * upsample;
    this.channels = channels;
    this.#narrowBytes = width * channels * OPERAND_BYTES[type];
    this.rowBytes = (this.#isNarrowed ? this.#narrowBytes / upsample : 0) +
      (this.#isUpsampled ? this.#narrowBytes * upsample : 0);
  }

  get #isNarrowed(): boolean {
    return this.#type !== "float32";
  }

  get #isUpsampled(): boolean {
    return this.#upsample > 1;
  }

  take(step: CudaStep, bands: readonly Band[]): ConvolutionInput[] {
    const most = Math.max(...bands.map((band) => this.#sourceOf(band).rows));
    if (this.#isNarrowed) this.#narrow = step.scratch(most * this.#narrowBytes);
    if (this.#isUpsampled) {
      this.#wide = step.scratch(most * this.#upsample ** 2 * this.#narrowBytes);
    }
    return bands.map((band) => this.#inputOf(band));
  }

  launch(step: CudaStep, { firstRow, rows }: ConvolutionInput): void {
    const { address, shape, strides } = this.#x;
    const [, width, channels] = shape as [number, number, number];
    const begin = address + 4 * firstRow * strides[0]!;
    const type = this.#type;
    if (type !== "float32") {
      const pixels = {
        address: begin,
        rows: rows * width,
        columns: channels,
        stride: strides[1]!,
      };
      launchNarrow(step, pixels, this.#narrow, type);
    }
    if (!this.#isUpsampled) return;
    const words = channels * OPERAND_BYTES[type] / 4;
    if (!this.#isNarrowed) return this.#repeat(step, begin, [rows, width, words], strides);
    this.#repeat(step, this.#narrow, [rows, width, words], [width * words, words]);
  }

  /** Every pixel `upsample` times along both axes. */
  #repeat(
    step: CudaStep,
    from: number,
    [rows, width, words]: readonly [number, number, number],
    [rowStride, pixelStride]: readonly number[],
  ): void {
    const times = this.#upsample;
    const shape = [rows, times, width, times, words];
    const line = width * times * words;
    launchCopy(
      step,
      { address: from, shape, strides: [rowStride!, 0, pixelStride!, 0, 1] },
      { address: this.#wide, shape, strides: [times * line, line, times * words, words, 1] },
    );
  }

  /** The rows of x under a band. */
  #sourceOf({ from, to }: Band): { firstRow: number; rows: number } {
    const firstRow = Math.floor(from / this.#upsample);
    return { firstRow, rows: Math.ceil(to / this.#upsample) - firstRow };
  }

  #inputOf(band: Band): ConvolutionInput {
    const source = this.#sourceOf(band);
    const [, width, channels] = this.#x.shape as [number, number, number];
    const wide = width * this.#upsample;
    const size = { height: band.to - band.from, width: wide, channels };
    const close = { ...size, rowStride: wide * channels, pixelStride: channels };
    if (this.#isUpsampled) {
      const skipped = band.from - source.firstRow * this.#upsample;
      const address = this.#wide + skipped * this.#narrowBytes * this.#upsample;
      return { ...source, address, layout: close };
    }
    if (this.#isNarrowed) return { ...source, address: this.#narrow, layout: close };
    const [rowStride, pixelStride] = this.#x.strides as [number, number, number];
    const address = this.#x.address + 4 * band.from * rowStride;
    return { ...source, address, layout: { ...size, rowStride, pixelStride } };
  }
}
