/** A model of a pipeline as users see it: what its weights are, and how to hold them in another way. */

import { HalftoneError } from "../errors.ts";
import {
  LayerwiseCastingConfig,
  type LayerwiseCastingOptions,
} from "../quantization/layerwise_casting_config.ts";
import type { QuantizationConfig } from "../quantization/quantizer.ts";
import type { WeightDType } from "../quantization/weights.ts";
import type { Component, WeightsChange } from "./component.ts";

/** How to make a model dense. */
export interface DequantizeOptions {
  /** The type of the dense weights; the pipeline's `dtype` or else bfloat16 by default. */
  readonly dtype?: WeightDType;
}

/** A model of a pipeline; Diffusers has these methods on the model classes. */
export interface PipelineModel {
  /** Such as "text_encoder_2". */
  readonly name: string;
  /** How its weights are quantized; null when they are dense. */
  readonly quantizationConfig: QuantizationConfig | null;
  /** Bytes of all its weights in their formats, scales and tables included. */
  getMemoryFootprint(): number;
  /**
   * Stores its weights as 8-bit floats, also beside weights that are quantized: those stay as they are.
   * The default skips are Diffusers'. Waits for the running call; the weights are read again when they
   * are next needed. Throws `quantization_config`, `unsupported` after `dequantize()`, `closed`.
   */
  enableLayerwiseCasting(
    options?: Omit<LayerwiseCastingOptions, "quantizationConfig">,
  ): Promise<void>;
  /**
   * Makes quantized weights dense, with the values that they have. Throws `quantization_config` when
   * none is quantized, `closed`.
   */
  dequantize(options?: DequantizeOptions): Promise<void>;
}

/** Applies a change to a component when no call runs, and forgets what was made of its weights. */
export type ApplyChange = (component: Component, change: WeightsChange) => Promise<void>;

/** The model of a component. */
export class ComponentModelHandle implements PipelineModel {
  readonly #component: Component;
  readonly #apply: ApplyChange;
  readonly #dtype: WeightDType;

  constructor(component: Component, apply: ApplyChange, dtype: WeightDType = "bfloat16") {
    this.#component = component;
    this.#apply = apply;
    this.#dtype = dtype;
  }

  get name(): string {
    return this.#component.name;
  }

  get quantizationConfig(): QuantizationConfig | null {
    return this.#component.weights.quantizationConfig;
  }

  getMemoryFootprint(): number {
    return this.#component.weights.memory().resident;
  }

  async enableLayerwiseCasting(
    options: Omit<LayerwiseCastingOptions, "quantizationConfig"> = {},
  ): Promise<void> {
    const { weights } = this.#component;
    if (weights.isDequantized) throw this.#afterDequantize();
    // Cast once more, a model is cast from what its checkpoint holds.
    const current = weights.quantizationConfig;
    const first = current instanceof LayerwiseCastingConfig ? current.quantizationConfig : current;
    const quantizationConfig = new LayerwiseCastingConfig({
      ...options,
      quantizationConfig: weights.preQuantized ? null : first,
    });
    await this.#apply(this.#component, { quantizationConfig });
  }

  async dequantize({ dtype = this.#dtype }: DequantizeOptions = {}): Promise<void> {
    if (!this.quantizationConfig) throw this.#notQuantized();
    const quantizationConfig = this.#callersConfig();
    await this.#apply(this.#component, { quantizationConfig, dequantizeTo: dtype });
  }

  /** What is in effect beside the checkpoint's own config. */
  #callersConfig(): QuantizationConfig | null {
    const { quantizationConfig, preQuantized, isChanged } = this.#component.weights;
    if (!preQuantized) return quantizationConfig;
    if (!isChanged || !(quantizationConfig instanceof LayerwiseCastingConfig)) return null;
    return new LayerwiseCastingConfig({ ...quantizationConfig, quantizationConfig: null });
  }

  #notQuantized(): HalftoneError {
    return new HalftoneError("quantization_config", "Cannot dequantize a model that is dense", {
      field: this.name,
    });
  }

  #afterDequantize(): HalftoneError {
    return new HalftoneError("unsupported", "Cannot cast a model that was dequantized in memory", {
      field: this.name,
      remedy: "Save it (savePretrained), and cast what is opened from there",
    });
  }
}
