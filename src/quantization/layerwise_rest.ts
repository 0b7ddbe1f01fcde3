/**
 * FP8 layerwise casting of what another method leaves dense, as Diffusers does it when a quantized model
 * is cast: quantized weights stay as they are, their biases and all other modules are rounded.
 */

import type { WeightInfo } from "../ops/graph.ts";
import type { DType } from "../tensor/dtype.ts";
import type { HostTensor } from "../tensor/host_tensor.ts";
import type { Shape } from "../tensor/shape.ts";
import { CAST_FORM } from "./layerwise_casting.ts";
import type { Pause } from "./pause.ts";
import {
  type EncodedWeight,
  moduleOf,
  type NamedTensor,
  type QuantizationConfig,
  type Quantizer,
  type TensorReader,
  type WrittenTensor,
} from "./quantizer.ts";

/** How what the first quantizer has done counts. */
export interface LayerwiseRestOptions {
  /** Whether the checkpoint holds the first method's weights, so that it quantizes nothing itself. */
  readonly isStored?: boolean;
  /** Whether other weights of the checkpoint are cast while it loads. */
  readonly castsRest?: boolean;
}

/** A quantizer, and the casting for what it leaves. */
export class LayerwiseRest implements Quantizer {
  readonly config: QuantizationConfig;
  readonly configless: boolean;
  readonly quantizesRest: boolean;
  readonly #first: Quantizer;
  readonly #casting: Quantizer;
  readonly #isStored: boolean;

  /** `config` is that of both together. */
  constructor(
    first: Quantizer,
    casting: Quantizer,
    config: QuantizationConfig,
    { isStored = false, castsRest = false }: LayerwiseRestOptions = {},
  ) {
    this.config = config;
    // A library's own state file knows nothing of the casting, so config.json has to speak.
    this.configless = (first.configless ?? false) && !first.stateFile;
    this.quantizesRest = castsRest;
    this.#first = first;
    this.#casting = casting;
    this.#isStored = isStored;
  }

  /** The method that quantizes, whose weights are not cast. */
  get first(): Quantizer {
    return this.#first;
  }

  skips(module: string): boolean {
    return this.#firstSkips(module) && this.#casting.skips(module);
  }

  describe(shape: Shape, dtype?: DType, name?: string): WeightInfo | null {
    const module = name === undefined ? undefined : moduleOf(name);
    const first = module === undefined || !this.#firstSkips(module);
    const info = first ? this.#first.describe(shape, dtype, name) : null;
    if (info !== null || (module !== undefined && this.#casting.skips(module))) return info;
    return this.#casting.describe(shape, dtype, name);
  }

  quantize(name: string, dense: HostTensor, pause: Pause): Promise<EncodedWeight> {
    return this.#quantizerOf(name, dense.shape, dense.dtype).quantize(name, dense, pause);
  }

  weightOf(tensor: string, checkpoint: TensorReader): string {
    return this.#first.weightOf?.(tensor, checkpoint) ?? tensor;
  }

  isCompanion(name: string, checkpoint: TensorReader): boolean {
    return this.#first.isCompanion(name, checkpoint) || this.#casting.isCompanion(name, checkpoint);
  }

  isStored(name: string, checkpoint: TensorReader): boolean {
    return this.#first.isStored(name, checkpoint) || this.#casting.isStored(name, checkpoint);
  }

  describeStored(name: string, checkpoint: TensorReader): Promise<WeightInfo> {
    return this.#readerOf(name, checkpoint).describeStored(name, checkpoint);
  }

  read(name: string, checkpoint: TensorReader): Promise<EncodedWeight> {
    return this.#readerOf(name, checkpoint).read(name, checkpoint);
  }

  write(name: string, weight: EncodedWeight): NamedTensor[] {
    return this.#writerOf(weight).write(name, weight);
  }

  dequantize(weight: EncodedWeight): HostTensor | null {
    return this.#writerOf(weight).dequantize?.(weight) ?? null;
  }

  storageType(name: string, shape: Shape): DType | null {
    return this.#casting.storageType?.(name, shape) ?? null;
  }

  /** To the first method a cast weight is a plain tensor. */
  get fileMetadata(): Quantizer["fileMetadata"] {
    if (!this.#first.fileMetadata) return undefined;
    return (tensors) =>
      this.#first.fileMetadata!(tensors.map((tensor): WrittenTensor => {
        const { name, shape, dtype, quantized } = tensor;
        const isFirst = quantized && this.#quantizerOf(name, shape, dtype) === this.#first;
        return { ...tensor, quantized: isFirst };
      }));
  }

  #firstSkips(module: string): boolean {
    return this.#isStored || this.#first.skips(module);
  }

  #quantizerOf(name: string, shape: Shape, dtype: DType): Quantizer {
    const isFirst = !this.#firstSkips(moduleOf(name)) &&
      this.#first.describe(shape, dtype, name) !== null;
    return isFirst ? this.#first : this.#casting;
  }

  #readerOf(name: string, checkpoint: TensorReader): Quantizer {
    return this.#first.isStored(name, checkpoint) ? this.#first : this.#casting;
  }

  #writerOf(weight: EncodedWeight): Quantizer {
    return weight.form === CAST_FORM ? this.#casting : this.#first;
  }
}
