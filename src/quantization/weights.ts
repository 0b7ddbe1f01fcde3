/**
 * The weights of a component as a backend gets them: dense, quantized while they load, or read as
 * some Python library quantized them. Opening reads headers and small companions only; a weight is
 * read and quantized when it is asked for, one at a time.
 */

import type { StoredWeight, WeightSource } from "../backends/backend.ts";
import { HalftoneError, invalidOption } from "../errors.ts";
import type { WeightCatalog, WeightInfo } from "../ops/graph.ts";
import type { PlanWeight } from "../plan/plan.ts";
import { hasSharedWorkers } from "../runtime/workers.ts";
import { type DType, isFloat, itemSize } from "../tensor/dtype.ts";
import type { HostTensor } from "../tensor/host_tensor.ts";
import type { ScratchBytes } from "../tensor/scratch_bytes.ts";
import { elementCount, sameShape, type Shape } from "../tensor/shape.ts";
import { codeBytes, weightBytes } from "./layout_bytes.ts";
import { channelsLast } from "./channels_last.ts";
import { denseWeight } from "./dense_weight.ts";
import { createPause } from "./pause.ts";
import {
  type EncodedWeight,
  moduleOf,
  type NamedTensor,
  type QuantizationConfig,
  type Quantizer,
  type TensorHeader,
  type TensorReader,
} from "./quantizer.ts";
import { type Resolved, type ResolveOptions, resolveQuantizer } from "./resolve_quantizer.ts";
import { type Loader, readingInto, streamDense, streamWeight } from "./weight_loader.ts";

export { libraryOf, resolveQuantizer } from "./resolve_quantizer.ts";

/** Types that float weights may be rounded to while they load. */
export type WeightDType = "float32" | "bfloat16" | "float16";

const WEIGHT_DTYPES: readonly WeightDType[] = ["float32", "bfloat16", "float16"];

/** Throws `invalid_argument` for an option `dtype` that is no such type. */
export function checkWeightDType(dtype: WeightDType | undefined): void {
  if (dtype === undefined || WEIGHT_DTYPES.includes(dtype)) return;
  throw invalidOption("dtype", dtype, WEIGHT_DTYPES.join(", "));
}

/** How to open the weights of a component. */
export interface OpenWeightsOptions extends ResolveOptions {
  /**
   * Float weights are rounded to it first, and quantized then, as Diffusers does. Without it every
   * weight keeps the type it is stored in (where Diffusers would take float16 for bitsandbytes).
   */
  readonly dtype?: WeightDType;
  /** Which `*.weight` tensors belong to linear layers. */
  readonly linearNames: (name: string) => boolean;
  /** Quantized weights are made dense in this type, with the values that they have. */
  readonly dequantizeTo?: WeightDType;
}

/** Bytes of a component's weights. */
export interface WeightMemory {
  /** In the checkpoint's files. */
  readonly stored: number;
  /** As a backend will hold them, with scales and tables. */
  readonly resident: number;
  /** The part of it that is scales, offsets and tables. */
  readonly scales: number;
}

/** The weights of a component: what they are, and where to get them. */
export interface ComponentWeights {
  readonly catalog: WeightCatalog;
  readonly source: WeightSource;
  /** The config in effect; null when nothing is quantized. */
  readonly quantizationConfig: QuantizationConfig | null;
  /** What quantized the weights, or does while they load; null when nothing is quantized. */
  readonly quantizer: Quantizer | null;
  /** Whether the checkpoint itself is quantized. */
  readonly preQuantized: boolean;
  /** Whether quantized weights were made dense. */
  readonly isDequantized: boolean;
  /** Whether weights differ from what the checkpoint holds, rounding to a type apart. */
  readonly isChanged: boolean;
  /** All weights with the values that they have, when none of them is quantized. */
  dense(): AsyncGenerator<NamedTensor>;
  memory(): WeightMemory;
}

/**
 * Opens the weights of a component; the checkpoint must stay open as long as they are read. Throws
 * `quantization_config`, `missing_tensor`, `tensor_shape_mismatch`.
 */
export async function openWeights(
  checkpoint: TensorReader,
  options: OpenWeightsOptions,
): Promise<ComponentWeights> {
  const { quantizer, preQuantized } = resolveQuantizer(checkpoint, options);
  const onTheFly = !preQuantized || (quantizer?.quantizesRest ?? false);
  const context = { checkpoint, options, quantizer, preQuantized, onTheFly };
  const weights = new Map<string, Loader>();
  for (const [stored, header] of checkpoint.entries) {
    if (preQuantized && quantizer?.isCompanion(stored, checkpoint)) continue;
    const name = (preQuantized && quantizer?.weightOf?.(stored, checkpoint)) || stored;
    weights.set(name, await chooseLoader(name, header, context));
  }
  return {
    catalog: { lookup: (name) => weights.get(name)?.info },
    source: {
      read: (weight, scratch) => {
        return readWeight(
          weight,
          weights,
          scratch ? readingInto(checkpoint, scratch) : checkpoint,
          scratch,
        );
      },
      isMade: ({ name }) => weights.get(name)?.isMade ?? false,
      stream: (weight, put, scratch) => streamWeight(weight, weights, checkpoint, put, scratch),
    },
    quantizationConfig: options.dequantizeTo === undefined ? quantizer?.config ?? null : null,
    quantizer,
    isDequantized: options.dequantizeTo !== undefined,
    isChanged: onTheFly && quantizer !== null || options.dequantizeTo !== undefined,
    preQuantized,
    dense: () => denseWeights(weights, checkpoint),
    memory: () => ({ stored: storedBytes(checkpoint), ...residentBytes(weights) }),
  };
}

interface LoaderContext extends Resolved {
  readonly checkpoint: TensorReader;
  readonly options: OpenWeightsOptions;
  /** Whether dense weights are quantized, or rounded, while they load. */
  readonly onTheFly: boolean;
}

async function chooseLoader(
  name: string,
  header: TensorHeader,
  context: LoaderContext,
): Promise<Loader> {
  const { quantizer, preQuantized, onTheFly, checkpoint, options } = context;
  if (preQuantized && quantizer?.isStored(name, checkpoint)) {
    return await storedLoader(name, quantizer, context);
  }
  const info = onTheFly
    ? quantizedInfo(name, header, quantizer, options.linearNames, options.dtype)
    : null;
  return info && quantizer
    ? quantizingLoader(name, info, quantizer, context)
    : denseLoader(name, header, context);
}

/** The loader of a quantized weight, or of the dense one that it stands for. */
function encodedLoader(
  name: string,
  info: WeightInfo,
  quantizer: Quantizer,
  { options }: LoaderContext,
  encode: (checkpoint: TensorReader, scratch?: ScratchBytes) => Promise<EncodedWeight>,
): Loader {
  const { dequantizeTo: dtype } = options;
  if (dtype === undefined) {
    return { info, read: async (...from) => quantized(await encode(...from)) };
  }
  const read: Loader["read"] = async (...from) => {
    const tensor = denseWeight(quantizer, await encode(...from), dtype);
    checkFloat16(name, tensor);
    return { kind: "dense", tensor };
  };
  const { shape } = info;
  return {
    info: { shape, format: { kind: "dense", dtype }, activations: { kind: "float" } },
    read,
  };
}

async function storedLoader(
  name: string,
  quantizer: Quantizer,
  context: LoaderContext,
): Promise<Loader> {
  const { checkpoint } = context;
  const info = await quantizer.describeStored(name, checkpoint);
  // Groups of nothing have no size; no library writes such a weight.
  if (info.shape.includes(0)) throw emptyWeight(name, info.shape, checkpoint);
  const loader = encodedLoader(name, info, quantizer, context, (from) => {
    return quantizer.read(name, from);
  });
  if (context.options.dequantizeTo !== undefined || !quantizer.stream) return loader;
  const stream: Loader["stream"] = async (...from) => {
    const tensor = await quantizer.stream!(name, ...from);
    return tensor && { kind: "quantized", tensor };
  };
  return { ...loader, stream };
}

function emptyWeight(tensor: string, shape: Shape, checkpoint: TensorReader): HalftoneError {
  return new HalftoneError("tensor_shape_mismatch", "Cannot use a quantized weight", {
    file: checkpoint.entries.get(tensor)?.file,
    tensor,
    found: `[${shape}]`,
    expected: "at least one row and column",
  });
}

function quantizingLoader(
  name: string,
  info: WeightInfo,
  quantizer: Quantizer,
  context: LoaderContext,
): Loader {
  const { options } = context;
  const loader = encodedLoader(name, info, quantizer, context, async (checkpoint, scratch) => {
    // Quantizers find what is not finite, on all threads; the checkpoint says better where.
    const dense = await checkpoint.read(name, { shared: hasSharedWorkers(), unchecked: true });
    try {
      const rounded = castWeight(name, dense, options.dtype ?? computable(dense.dtype));
      return await quantizer.quantize(name, rounded, createPause({ scratch }));
    } catch (error) {
      if (isNotFinite(error)) await checkpoint.read(name);
      throw error;
    }
  });
  return { ...loader, isMade: hasSharedWorkers() };
}

function isNotFinite(error: unknown): boolean {
  return error instanceof HalftoneError && error.code === "non_finite_weight";
}

function denseLoader(name: string, header: TensorHeader, context: LoaderContext): Loader {
  const { options, quantizer, onTheFly } = context;
  const dtype = denseDType(name, header.dtype, options);
  const isCast = onTheFly && isFloat(header.dtype);
  const storage = (isCast && quantizer?.storageType?.(name, header.shape)) || dtype;
  const info: WeightInfo = {
    shape: header.shape,
    format: { kind: "dense", dtype },
    activations: { kind: "float" },
  };
  const read = async (checkpoint: TensorReader): Promise<StoredWeight> => {
    const dense = await checkpoint.read(name);
    const stored = storage === dtype ? dense : castWeight(name, dense, dtype).cast(storage);
    return { kind: "dense", tensor: castWeight(name, stored, dtype) };
  };
  if (storage !== dtype || header.dtype !== dtype) return { info, read };
  return { info, read, stream: (checkpoint, put) => streamDense(name, checkpoint, put) };
}

/** How a dense weight will be quantized; null when it stays dense. */
export function quantizedInfo(
  name: string,
  header: TensorHeader,
  quantizer: Quantizer | null,
  linearNames: (name: string) => boolean,
  dtype: WeightDType = computable(header.dtype) as WeightDType,
): WeightInfo | null {
  if (!quantizer || !isFloat(header.dtype) || !linearNames(name)) return null;
  return quantizer.skips(moduleOf(name)) ? null : quantizer.describe(header.shape, dtype, name);
}

/**
 * The type a dense weight will have. Modules the class keeps in float32 escape rounding to float16 only,
 * as in Transformers.
 */
export function denseDType(
  name: string,
  stored: DType,
  options: Pick<OpenWeightsOptions, "dtype" | "keepInFloat32">,
): DType {
  if (!isFloat(stored)) return stored;
  const kept = options.keepInFloat32?.some((module) => name.split(".").includes(module)) ?? false;
  if (kept && options.dtype === "float16") return "float32";
  return options.dtype ?? computable(stored);
}

/** The type itself, or for storage-only types the smallest that holds their values exactly. */
export function computable(dtype: DType): DType {
  if (dtype.startsWith("float8")) return "bfloat16";
  return dtype === "float64" ? "float32" : dtype;
}

/** The weight in another type; a value that float16 cannot hold throws `non_finite_weight`. */
export function castWeight(name: string, dense: HostTensor, dtype: DType): HostTensor {
  const result = dense.cast(dtype);
  if (dense.dtype !== dtype) checkFloat16(name, result);
  return result;
}

/** Throws `non_finite_weight` for a float16 tensor with a value beyond its range. */
export function checkFloat16(name: string, tensor: HostTensor): void {
  if (tensor.dtype !== "float16") return;
  const bits = new Uint16Array(tensor.bytes.buffer, tensor.bytes.byteOffset, tensor.size);
  const index = bits.findIndex((value) => (value & 0x7c00) === 0x7c00);
  if (index < 0) return;
  throw new HalftoneError("non_finite_weight", "Cannot round a weight to float16", {
    tensor: name,
    found: `a value beyond 65504 at element ${index}`,
    remedy: "Use bfloat16 or float32",
  });
}

function quantized({ tensor }: { tensor: Extract<StoredWeight, { kind: "quantized" }>["tensor"] }) {
  return { kind: "quantized", tensor } as const;
}

async function readWeight(
  weight: PlanWeight,
  weights: ReadonlyMap<string, Loader>,
  checkpoint: TensorReader,
  scratch: ScratchBytes | undefined,
): Promise<StoredWeight> {
  const loader = weights.get(weight.name);
  if (!loader) {
    throw new HalftoneError("missing_tensor", "Cannot find a weight of the plan", {
      tensor: weight.name,
    });
  }
  const stored = await loader.read(checkpoint, scratch);
  if (stored.kind === "quantized") return checkedShape(weight, stored);
  const { shape, arrangement, format } = weight;
  const arranged = arrangement === "convolution" ? channelsLast(stored.tensor) : stored.tensor;
  // Vectors and convolutions are float32 in every plan, whatever type they are stored in.
  const tensor = format.kind === "dense" ? arranged.cast(format.dtype) : arranged;
  return { kind: "dense", tensor: sameShape(tensor.shape, shape) ? tensor : tensor.reshape(shape) };
}

function checkedShape(
  weight: PlanWeight,
  stored: Extract<StoredWeight, { kind: "quantized" }>,
): StoredWeight {
  if (elementCount(stored.tensor.shape) === elementCount(weight.shape)) return stored;
  throw new HalftoneError("tensor_shape_mismatch", "Cannot use a quantized weight", {
    tensor: weight.name,
    found: `[${stored.tensor.shape}]`,
    expected: `[${weight.shape}]`,
  });
}

async function* denseWeights(
  weights: ReadonlyMap<string, Loader>,
  checkpoint: TensorReader,
): AsyncGenerator<NamedTensor> {
  for (const [name, loader] of weights) {
    const weight = await loader.read(checkpoint);
    if (weight.kind === "dense") yield { name, tensor: weight.tensor };
  }
}

function storedBytes(checkpoint: TensorReader): number {
  let bytes = 0;
  for (const { dtype, shape } of checkpoint.entries.values()) {
    bytes += elementCount(shape) * itemSize(dtype);
  }
  return bytes;
}

function residentBytes(weights: ReadonlyMap<string, Loader>) {
  let resident = 0, scales = 0;
  for (const { info: { shape, format } } of weights.values()) {
    const bytes = weightBytes(shape, format);
    resident += bytes;
    if (format.kind === "quantized") scales += bytes - codeBytes(shape, format.layout);
  }
  return { resident, scales };
}
