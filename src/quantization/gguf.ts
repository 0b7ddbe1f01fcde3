/** GGUF as a method: weights in ggml's blocks, read from files or quantized while they load. */

import { HalftoneError } from "../errors.ts";
import type { WeightInfo } from "../ops/graph.ts";
import type { DType } from "../tensor/dtype.ts";
import { HostTensor } from "../tensor/host_tensor.ts";
import type { ScratchBytes } from "../tensor/scratch_bytes.ts";
import { elementCount, type Shape } from "../tensor/shape.ts";
import { checkFinite, type FloatSlice, floatSlices } from "./float_slices.ts";
import { ggufLayout, ggufTypeOfLayout } from "./gguf_blocks.ts";
import { GGUFQuantizationConfig } from "./gguf_config.ts";
import {
  type GgufMix,
  ggufTypeFor,
  SMALLEST_QUANTIZED,
  staysDense,
  t5Layers,
} from "./gguf_mixes.ts";
import type { GgufQuantType } from "./gguf_quantizers.ts";
import { splitBlocks, splitPieces } from "./gguf_split.ts";
import { blockCount, checkBlockScales, encodeBlocks } from "./gguf_tensors.ts";
import { type GgufBlockType, ggufTypeInfo } from "./gguf_types.ts";
import { refuse } from "./groups.ts";
import { LARGEST_BLOCK_VALUE } from "./kernel_job.ts";
import { jobValues, runKernels } from "./kernel_runs.ts";
import type { Pause } from "./pause.ts";
import type {
  EncodedWeight,
  Method,
  NamedTensor,
  PieceReader,
  PutBytes,
  Quantizer,
  StreamedTensor,
  TensorReader,
} from "./quantizer.ts";
import { weightOnlyInfo } from "./quantizer.ts";

/** GGUF: the types of ggml and the mixes of llama.cpp. */
export const GGUF: Method = {
  name: "gguf",
  backends: ["gguf"],
  sharedWithTransformers: false,
  accepts: (config) => config instanceof GGUFQuantizationConfig,
  fromDict: (dict) => GGUFQuantizationConfig.fromDict(dict),
  create: (config, { tensors }) => new GgufQuantizer(config as GGUFQuantizationConfig, tensors),
  detect: (checkpoint) => {
    for (const { ggufType } of checkpoint.entries.values()) {
      if (ggufType !== undefined) return { quant_method: "gguf" };
    }
    return null;
  },
  formats: [
    format("Q4_0", "4-bit integers, a float16 scale per 32 weights"),
    format("Q4_1", "4-bit integers, a float16 scale and minimum per 32"),
    format("Q5_0", "5-bit integers, a float16 scale per 32"),
    format("Q5_1", "5-bit integers, a float16 scale and minimum per 32"),
    format("Q8_0", "8-bit integers, a float16 scale per 32"),
    format("Q2_K", "2-bit integers, 4-bit scales and minima per 16; in T5 some layers in Q3_K"),
    format("Q3_K", "3-bit integers, 6-bit scales per 16"),
    format("Q3_K_S", "Q3_K throughout"),
    format("Q3_K_M", "Q3_K, joint attention in Q4_K; in T5 some layers in Q4_K or Q5_K"),
    format("Q3_K_L", "as Q3_K_M; in T5 some layers in Q5_K"),
    format("Q4_K", "4-bit integers, 6-bit scales and minima per 32"),
    format("Q4_K_S", "Q4_K throughout; in T5 some layers in Q5_K"),
    format("Q4_K_M", "Q4_K, joint attention in Q5_K; in T5 some layers in Q6_K"),
    format("Q5_K", "5-bit integers, 6-bit scales and minima per 32"),
    format("Q5_K_S", "Q5_K throughout"),
    format("Q5_K_M", "Q5_K, joint attention in Q6_K; in T5 some layers in Q6_K"),
    format("Q6_K", "6-bit integers, 8-bit scales per 16"),
    format("IQ4_NL", "16 uneven levels, a float16 scale per 32"),
    format("IQ4_XS", "16 uneven levels, 6-bit scales per 32"),
    format("MXFP4", "4-bit floats (e2m1), a power of two per 32 weights"),
    format("NVFP4", "4-bit floats (e2m1), an e4m3 scale per 16 and no other"),
  ],
};

function format(quantType: GgufMix, description: string) {
  const config = () => new GGUFQuantizationConfig({ quantType });
  return { name: quantType, description, config };
}

/** The method bound to a config. */
export class GgufQuantizer implements Quantizer {
  readonly #layers: number;

  /** `tensors`: the names of the component's, because some mixes count T5's layers. */
  constructor(readonly config: GGUFQuantizationConfig, tensors: Iterable<string> = []) {
    this.#layers = t5Layers(tensors);
  }

  skips(module: string): boolean {
    return staysDense(module);
  }

  describe(shape: Shape, _dtype?: DType, name = ""): WeightInfo | null {
    const type = this.#typeOf(name, shape);
    if (shape.length !== 2 || elementCount(shape) <= SMALLEST_QUANTIZED) return null;
    return shape[1] % ggufTypeInfo(type).elements === 0 ? infoOf(type, shape) : null;
  }

  async quantize(name: string, dense: HostTensor, pause: Pause): Promise<EncodedWeight> {
    const type = this.#typeOf(name, dense.shape);
    const [rows, columns] = dense.shape;
    const bytes = await quantizeTensor(type, name, dense, pause);
    const { scratch } = pause;
    const tensor = await splitBlocks({ type, shape: [rows, columns], name, scratch }, bytes);
    return { tensor, dtype: dense.dtype };
  }

  isCompanion(): boolean {
    return false;
  }

  isStored(name: string, checkpoint: TensorReader): boolean {
    return checkpoint.entries.get(name)?.ggufType !== undefined;
  }

  describeStored(name: string, checkpoint: TensorReader): Promise<WeightInfo> {
    const { type, shape } = storedMatrix(name, checkpoint);
    return Promise.resolve(infoOf(type, shape));
  }

  async read(name: string, checkpoint: TensorReader): Promise<EncodedWeight> {
    const { type, shape } = storedMatrix(name, checkpoint);
    const { bytes } = await checkpoint.read(name, { packed: true });
    return { tensor: await splitBlocks({ type, shape, name }, bytes), dtype: "float32" };
  }

  async stream(
    name: string,
    checkpoint: PieceReader,
    put: PutBytes,
    scratch?: ScratchBytes,
  ): Promise<StreamedTensor> {
    const matrix = { name, ...storedMatrix(name, checkpoint), scratch };
    return await splitPieces(matrix, put, (memory, take) => {
      return checkpoint.readPieces(name, memory, take, { packed: true });
    });
  }

  write(name: string, { tensor }: EncodedWeight): NamedTensor[] {
    const type = ggufTypeOfLayout(tensor.layout);
    if (type === null) {
      throw new HalftoneError("unsupported", "Cannot write this layout as GGUF", { tensor: name });
    }
    const bytes = encodeBlocks(type, tensor);
    const rows = tensor.shape[0];
    const blocks = new HostTensor("uint8", [rows, bytes.length / rows], bytes);
    return [{ name, tensor: blocks, ggufType: type }];
  }

  #typeOf(name: string, [, columns]: Shape): GgufQuantType {
    return ggufTypeFor(this.#mix(), { name, columns, layers: this.#layers });
  }

  #mix(): GgufMix {
    const { quantType } = this.config;
    if (quantType !== null) return quantType;
    throw new HalftoneError("quantization_config", "Cannot tell which GGUF type is wanted", {
      field: "quant_type",
      found: "nothing",
      expected: GGUF.formats.map(({ name }) => name).join(", "),
    });
  }
}

/** Quantizes a dense tensor whose rows are whole blocks. Throws `non_finite_weight`. */
export async function quantizeTensor(
  type: GgufQuantType,
  name: string,
  dense: HostTensor,
  pause: Pause,
): Promise<Uint8Array> {
  return await runKernels({
    dense,
    job: { kind: "blocks", values: jobValues(dense), type },
    refuse: (blocks) => refuseBlocks(type, name, dense, blocks),
  }, pause);
}

/** Names the first value that blocks cannot hold, or the scale that float16 cannot. */
function refuseBlocks(
  type: GgufQuantType,
  name: string,
  dense: HostTensor,
  blocks: Uint8Array,
): never {
  for (const slice of floatSlices(dense, 1)) checkRange(slice, name);
  checkBlockScales(type, blocks, name);
  return refuse(name, dense);
}

function checkRange(slice: FloatSlice, tensor: string): void {
  checkFinite(slice, tensor);
  const { start, values } = slice;
  const index = values.findIndex((value) => Math.abs(value) > LARGEST_BLOCK_VALUE);
  if (index < 0) return;
  throw new HalftoneError("non_finite_weight", "Cannot hold a weight with float16 scales", {
    tensor,
    found: `${values[index]} at element ${start + index}`,
    expected: `at most ${LARGEST_BLOCK_VALUE}`,
    remedy: "The checkpoint is damaged or was saved after training diverged",
  });
}

function infoOf(type: GgufBlockType, shape: Shape): WeightInfo {
  const layout = ggufLayout(type, elementCount(shape) / ggufTypeInfo(type).elements);
  return weightOnlyInfo(shape, layout);
}

/** The type and the shape in elements of a stored matrix, whose header counts bytes. */
function storedMatrix(name: string, checkpoint: TensorReader) {
  const entry = checkpoint.entries.get(name);
  const type = entry?.ggufType;
  if (entry === undefined || type === undefined) {
    throw new HalftoneError("missing_tensor", "Cannot find a GGUF weight", { tensor: name });
  }
  if (entry.shape.length !== 2) {
    throw new HalftoneError("unsupported", "Cannot use blocks that are not a matrix", {
      file: entry.file,
      tensor: name,
      found: `${entry.shape.length} dimensions`,
      expected: "2",
    });
  }
  const { elements, bytes } = ggufTypeInfo(type);
  const shape = [entry.shape[0], entry.shape[1] / bytes * elements] as const;
  blockCount(type, shape, name);
  return { type, shape };
}
