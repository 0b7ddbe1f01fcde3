/**
 * halftone: pictures from text with quantized Flux models, in TypeScript, on Deno and Bun.
 *
 * ```ts
 * import { FluxPipeline } from "@halftone/halftone";
 *
 * await using pipe = await FluxPipeline.fromPretrained("models/demo");
 * const { images } = await pipe.generate({
 *   prompt: "a red star above a blue house on a white background",
 *   numInferenceSteps: 20,
 *   maxSequenceLength: 32,
 *   seed: 0,
 * });
 * await images[0].save("star.png");
 * ```
 *
 * Weights can be quantized while they load:
 *
 * ```ts
 * import { BitsAndBytesConfig, FluxPipeline, PipelineQuantizationConfig } from "@halftone/halftone";
 *
 * const quantizationConfig = new PipelineQuantizationConfig({
 *   quantMapping: {
 *     transformer: new BitsAndBytesConfig({ loadIn4bit: true, bnb4bitQuantType: "nf4" }),
 *   },
 * });
 * await using pipe = await FluxPipeline.fromPretrained("models/demo", { quantizationConfig });
 * ```
 *
 * Every failure is a {@link HalftoneError} with a stable `code`.
 *
 * @module
 */

export { type ErrorCode, type ErrorDetail, HalftoneError } from "./src/errors.ts";

export type { DType } from "./src/tensor/dtype.ts";
export { HostTensor } from "./src/tensor/host_tensor.ts";
export { type NoiseDType, TorchGenerator } from "./src/tensor/random.ts";
export type { Shape } from "./src/tensor/shape.ts";

export type { MemoryUse } from "./src/backends/backend.ts";
export type { BackendName, BackendOptions } from "./src/backends/select.ts";
export type { MatmulPrecision } from "./src/backends/cuda/matmul_precision.ts";
export { type BackendHandle, openBackend } from "./src/pipelines/backend_handle.ts";

export {
  BitsAndBytesConfig,
  type BitsAndBytesOptions,
  type ComputeDType,
} from "./src/quantization/bitsandbytes_config.ts";
export {
  GGUFQuantizationConfig,
  type GGUFQuantizationOptions,
} from "./src/quantization/gguf_config.ts";
export type { GgufMix } from "./src/quantization/gguf_mixes.ts";
export type { GgufQuantType } from "./src/quantization/gguf_quantizers.ts";
export type { GgufBlockType } from "./src/quantization/gguf_types.ts";
export type { CalibrationOptions, InputAmax } from "./src/pipelines/input_calibration.ts";
export type { ModelOptActivationType } from "./src/quantization/modelopt_activations.ts";
export {
  type ModelOptAlgorithm,
  type ModelOptType,
  NVIDIAModelOptConfig,
  type NVIDIAModelOptOptions,
} from "./src/quantization/modelopt_config.ts";
export {
  LayerwiseCastingConfig,
  type LayerwiseCastingOptions,
} from "./src/quantization/layerwise_casting_config.ts";
export {
  QuantoConfig,
  type QuantoDType,
  type QuantoOptions,
} from "./src/quantization/quanto_config.ts";
export { TorchAoConfig, type TorchAoOptions } from "./src/quantization/torchao_config.ts";
export {
  Float8WeightOnlyConfig,
  FPXWeightOnlyConfig,
  Int4WeightOnlyConfig,
  type Int4WeightOnlyOptions,
  Int8WeightOnlyConfig,
  IntxWeightOnlyConfig,
  type TorchAoQuantType,
} from "./src/quantization/torchao_types.ts";
export type { AttentionChoice } from "./src/pipelines/attention_choice.ts";
export type { ActivationChoice } from "./src/quantization/activation_choice.ts";
export {
  Float8DynamicActivationFloat8WeightConfig,
  type Float8DynamicOptions,
  type GranularityPair,
  Int8DynamicActivationInt8WeightConfig,
  Int8DynamicActivationIntxWeightConfig,
  type Int8DynamicIntxOptions,
  type Int8DynamicOptions,
  Int8StaticActivationInt8WeightConfig,
  type Int8StaticOptions,
} from "./src/quantization/torchao_dynamic.ts";
export type {
  ActivationGranularity,
  ActivationMapping,
  StaticActivationScale,
  TorchaoActivations,
} from "./src/quantization/torchao_activations.ts";
export type {
  Int4ChooseQParamsAlgorithm,
  Int4PackingFormat,
} from "./src/quantization/torchao_int4.ts";
export type {
  Float8DType,
  Granularity,
  MappingType,
  Scheme,
} from "./src/quantization/torchao_schemes.ts";
export type { FloatxFormat } from "./src/quantization/floatx.ts";
export {
  PipelineQuantizationConfig,
  type PipelineQuantizationOptions,
} from "./src/quantization/pipeline_config.ts";
export type { QuantizationConfig } from "./src/quantization/quantizer.ts";
export type { FourBitType } from "./src/quantization/bitsandbytes_tables.ts";
export type { StorageDType } from "./src/quantization/bitsandbytes_4bit_tensors.ts";
export { JsonNumber, type JsonValue } from "./src/quantization/python_json.ts";
export type { WeightDType } from "./src/quantization/weights.ts";

export { FluxTransformer2DModel } from "./src/models/flux_transformer.ts";
export type { FluxTransformerConfig } from "./src/models/flux_transformer_config.ts";
export { type T5Config, T5EncoderModel } from "./src/models/t5.ts";
export { type FromSingleFileOptions, PretrainedModel } from "./src/models/pretrained_model.ts";
export type { SaveModelOptions } from "./src/models/save_model.ts";

export { FluxPipeline } from "./src/pipelines/flux.ts";
export type {
  EncodePromptOptions,
  FluxGenerateOptions,
  FluxPipelineOptions,
  FluxPipelineOutput,
  LoadProgress,
  MemoryReport,
  PromptEmbeddings,
  Seed,
  StepChanges,
  StepEvent,
} from "./src/pipelines/flux_options.ts";
export type {
  ComponentReport,
  FluxPlanOptions,
  FluxPlanReport,
  PipelineMemoryReport,
  StageReport,
} from "./src/pipelines/flux_plans.ts";
export type { DequantizeOptions, PipelineModel } from "./src/pipelines/pipeline_model.ts";
export type { SaveOptions } from "./src/pipelines/save_pretrained.ts";
export { PipelineImage } from "./src/pipelines/image.ts";
export type { Timings } from "./src/pipelines/stage_clock.ts";
