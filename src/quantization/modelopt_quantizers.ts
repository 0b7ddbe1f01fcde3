/**
 * The quantizers of ModelOpt as modelopt_state.pth describes them: the attributes of its TensorQuantizer, as
 * they follow from the tensors of a compressed layer. See modelopt_state.ts for the file.
 */

import type { DType } from "../tensor/dtype.ts";
import type { Shape } from "../tensor/shape.ts";
import { INPUT_AMAX, type ModelOptActivationType } from "./modelopt_activations.ts";
import type { ModelOptType, NVIDIAModelOptConfig } from "./modelopt_config.ts";
import {
  BUFFERS,
  describeModelOpt,
  isModelOptWeight,
  PREFIX,
  type StoredModelOpt,
} from "./modelopt_tensors.ts";
import {
  type PickleValue,
  PythonCall,
  PythonFloat,
  PythonGlobal,
  PythonTuple,
} from "./python_pickle.ts";
import type { TensorHeader, TensorHeaders } from "./quantizer.ts";

/** A dict with text keys. */
export type Dict = { readonly [key: string]: PickleValue };

/** What a quantizer rounds to. */
export interface Settings {
  readonly bits: PickleValue;
  readonly axis: PickleValue;
  readonly blocks: PickleValue;
}

/** A linear layer of a folder. */
export interface Layer {
  readonly module: string;
  /** Null when its weight is dense. */
  readonly stored: StoredModelOpt | null;
  /** The header of the weight. */
  readonly packed: TensorHeader;
  readonly weight: Settings;
  /** The headers of the weight's buffers, by their names. */
  readonly buffers: readonly (readonly [string, TensorHeader])[];
  readonly inputAmax: TensorHeader | undefined;
}

/** What the tensors of a layer say; `dense` are the settings of weights that are not quantized. */
export function layerOf(
  module: string,
  written: TensorHeaders,
  config: NVIDIAModelOptConfig,
  dense: Settings,
): Layer {
  const name = `${module}.weight`;
  const header = (suffix: string) => written.entries.get(`${module}.${suffix}`);
  const layer = { module, packed: header("weight")!, inputAmax: header(INPUT_AMAX) };
  if (!isModelOptWeight(name, written)) {
    return { ...layer, stored: null, weight: dense, buffers: [] };
  }
  const stored = describeModelOpt(name, written, config.blockQuantize ?? 64);
  const buffers = BUFFERS.flatMap((buffer) => {
    const found = header(`${PREFIX}${buffer}`);
    return found ? [[buffer, found] as const] : [];
  });
  const weight = weightSettings(stored, header(`${PREFIX}_scale`)!, config);
  return { ...layer, stored, weight, buffers };
}

const BITS: Readonly<Record<ModelOptType, PickleValue>> = {
  FP8: new PythonTuple([4, 3]),
  INT8: 8,
  INT4: 4,
  NF4: 4,
  NVFP4: new PythonTuple([2, 1]),
};

/** What a quantizer has that nothing was said of. */
export const DEFAULTS: Settings = { bits: 8, axis: null, blocks: null };

/** Of rounded activations. */
export function activationSettings(type: ModelOptActivationType): Settings {
  return { ...DEFAULTS, bits: BITS[type] };
}

function weightSettings(
  { type, shape: [rows, columns], groupSize }: StoredModelOpt,
  scale: TensorHeader,
  { scaleBlockQuantize }: NVIDIAModelOptConfig,
): Settings {
  const bits = BITS[type];
  if (type === "FP8" || type === "INT8") {
    if (groupSize === rows * columns) return { bits, axis: null, blocks: null };
    if (groupSize === columns) return { bits, axis: 0, blocks: null };
  }
  const blocks = new Map<string | number, PickleValue>([[-1, groupSize]]);
  if (type === "NF4" || type === "NVFP4") {
    blocks.set("scale_bits", type === "NF4" ? 8 : new PythonTuple([4, 3]));
    const size = type === "NF4" ? scale.shape[1] : scaleBlockQuantize ?? 8;
    blocks.set("scale_block_sizes", new Map([[-1, size]]));
  }
  return { bits, axis: null, blocks };
}

/** ModelOpt's QuantizerAttributeConfig. */
export function attributeConfig({ bits, axis, blocks }: Settings): Dict {
  return {
    axis,
    backend: null,
    backend_extra_args: null,
    bias: null,
    block_sizes: blocks,
    calibrator: "max",
    constant_amax: null,
    effective_bits: null,
    enable: true,
    fake_quant: true,
    learn_amax: false,
    narrow_range: false,
    num_bits: bits,
    pass_through_bwd: true,
    rotate: false,
    trt_high_precision_dtype: "Float",
    type: "static",
    unsigned: false,
    use_constant_amax: false,
  };
}

/** How far a weight is: not calibrated, its range known, or compressed with all buffers. */
export type Progress = "none" | "range" | "all";

/** The quantizer of a layer's weight. */
export function weightQuantizer({ stored, weight, buffers }: Layer, progress: Progress): Dict {
  const isCompressed = progress === "all";
  if (!stored) return attributes(weight, { isCompressed });
  const ranges = buffers.filter(([name]) => name.endsWith("amax"));
  const options = { isEnabled: true, isCompressed, buffers: isCompressed ? buffers : ranges };
  if (progress === "none") return attributes(weight, { isEnabled: true });
  if (weight.blocks === null) return attributes(weight, options);
  const axis = new PythonTuple([0]); // calibration takes blocks for the rows of a longer matrix
  return { ...attributes({ ...weight, axis }, options), ...blockAttributes(stored) };
}

function blockAttributes({ type, shape }: StoredModelOpt): Dict {
  const exported = { _amax_shape_for_export: new PythonTuple([shape[0], -1]) };
  if (type === "FP8") return exported;
  return {
    ...exported,
    _is_static_block_scale_quantizer: true,
    ...(type === "NVFP4" ? { _is_nvfp4_static_quantizer: true } : {}),
    _quant_max_bound: new PythonFloat(MAX_BOUND[type]),
  };
}

/** The largest code. */
const MAX_BOUND: Readonly<Record<Exclude<ModelOptType, "FP8">, number>> = {
  INT8: 127,
  INT4: 7,
  NF4: 7,
  NVFP4: 6,
};

/** The state of a quantizer. */
export interface AttributeOptions {
  readonly isEnabled?: boolean;
  readonly isCompressed?: boolean;
  readonly buffers?: readonly (readonly [string, TensorHeader])[];
}

/** The attributes of a TensorQuantizer. */
export function attributes(
  { bits, axis, blocks }: Settings,
  { isEnabled = false, isCompressed = false, buffers = [] }: AttributeOptions = {},
): Dict {
  const described = buffers.map(([name, { shape, dtype }]) => {
    return [name, { shape: size(shape), dtype: torchType(dtype) }] as const;
  });
  return {
    _axis: axis,
    _bias: null,
    _block_sizes: blocks,
    _constant_amax: null,
    _dequantize: isCompressed && isEnabled,
    _disabled: !isEnabled,
    _dynamic: false,
    _effective_bits: null,
    _enable_pre_quant_scale: true,
    _fake_quant: !isCompressed,
    _if_calib: false,
    _if_quant: true,
    _input_dtype: null,
    _learn_amax: false,
    _narrow_range: false,
    _num_bits: bits,
    _pass_through_bwd: true,
    _pytorch_state_metadata: { params: {}, buffers: Object.fromEntries(described) },
    _rotate: false,
    _trt_high_precision_dtype: "Float",
    _unsigned: false,
    _use_constant_amax: false,
    backend: null,
    backend_extra_args: {},
  };
}

/** What ModelOpt says of a packed weight. */
export function packedWeight({ type, shape, dtype }: StoredModelOpt, packed: TensorHeader): Dict {
  const qtensor = `modelopt.torch.quantization.qtensor.${type.toLowerCase()}_tensor`;
  return {
    metadata: {
      shape: size(shape),
      dtype: torchType(dtype),
      qtensor_class: new PythonGlobal(qtensor, `${type}QTensor`),
    },
    "quantized_data.shape": size(packed.shape),
    "quantized_data.dtype": torchType(packed.dtype),
  };
}

function size(shape: Shape): PythonCall {
  return new PythonCall(
    new PythonGlobal("torch", "Size"),
    new PythonTuple([new PythonTuple(shape)]),
  );
}

function torchType(dtype: DType): PythonGlobal {
  return new PythonGlobal("torch", dtype);
}
