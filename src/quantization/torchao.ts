/** torchao as a quantization method: weight-only formats on the one layout. */

import type { WeightInfo } from "../ops/graph.ts";
import type { ActivationMode } from "../ops/activation_mode.ts";
import type { DType } from "../tensor/dtype.ts";
import type { HostTensor } from "../tensor/host_tensor.ts";
import type { Shape } from "../tensor/shape.ts";
import { floatxFormat } from "./floatx.ts";
import type { Pause } from "./pause.ts";
import type {
  EncodedWeight,
  Method,
  NamedTensor,
  Quantizer,
  QuantizerTarget,
  TensorReader,
  WrittenTensor,
} from "./quantizer.ts";
import { skipsModule } from "./skip_modules.ts";
import { TorchAoConfig } from "./torchao_config.ts";
import { dequantizeZeroPoint } from "./torchao_dequantize.ts";
import { FORMS, quantizeScheme, schemeLayout } from "./torchao_schemes.ts";
import { schemeJson, torchaoMetadata } from "./torchao_metadata.ts";
import { isTorchaoCompanion, isTorchaoWeight, torchaoWeightOf } from "./torchao_parts.ts";
import {
  describeTorchao,
  readTorchao,
  readTorchaoLayout,
  type StoredTorchao,
  writeTorchao,
} from "./torchao_tensors.ts";
import {
  Float8WeightOnlyConfig,
  FPXWeightOnlyConfig,
  INT4_PACKINGS,
  Int4WeightOnlyConfig,
  type Int4WeightOnlyOptions,
  Int8WeightOnlyConfig,
  IntxWeightOnlyConfig,
  type TorchAoQuantType,
} from "./torchao_types.ts";

/** torchao: int8, int4, 1 to 7 bit integers, float8 and small floats. */
export const TORCHAO: Method = {
  name: "torchao",
  backends: ["torchao"],
  sharedWithTransformers: false,
  accepts: (config) => config instanceof TorchAoConfig,
  fromDict: (dict) => TorchAoConfig.fromDict(dict),
  create: (config, target) => new TorchAoQuantizer(config as TorchAoConfig, target),
  detect: detectConfig,
  formats: [
    format("int8wo", "int8, a scale per row"),
    format("int4wo", "int4, scale and zero per 128 weights"),
    int4Format("int4wo_tile_packed_to_4d", "the same as tinygemm's tiles", {
      int4PackingFormat: "TILE_PACKED_TO_4D",
    }),
    int4Format("int4wo_hqq", "tiles with zeros chosen by half-quadratic quantization", {
      int4PackingFormat: "TILE_PACKED_TO_4D",
      int4ChooseQparamsAlgorithm: "HQQ",
    }),
    int4Format("int4wo_plain_int32", "int4, scale and zero point per 128 weights", {
      int4PackingFormat: "PLAIN_INT32",
    }),
    ...[1, 2, 3, 4, 5, 6, 7].map((bits) =>
      format(`uint${bits}wo`, `${bits}-bit integers, scale and zero point per 64 weights`)
    ),
    format("float8wo_e4m3", "float8 e4m3, a scale per row"),
    format("float8wo_e5m2", "float8 e5m2, a scale per row"),
    ...["1, 1", "2, 1", "2, 2", "3, 2", "3, 3"].map((bits, index) =>
      format(`fp${index + 3}`, `floats of ${bits} exponent and mantissa bits, a scale per row`)
    ),
  ],
};

function format(name: string, description: string) {
  return { name, description, config: () => new TorchAoConfig({ quantType: name }) };
}

function int4Format(name: string, description: string, options: Int4WeightOnlyOptions) {
  const config = () => new TorchAoConfig({ quantType: new Int4WeightOnlyConfig(options) });
  return { name, description, config };
}

const FLOAT: ActivationMode = { kind: "float" };

class TorchAoQuantizer implements Quantizer {
  readonly config: TorchAoConfig;
  readonly #target: QuantizerTarget;
  readonly #skipped: readonly string[];

  constructor(config: TorchAoConfig, target: QuantizerTarget) {
    this.config = config;
    this.#target = target;
    this.#skipped = [...config.modulesToNotConvert ?? [], ...target.keepInFloat32];
  }

  /** In Diffusers "entry." anywhere in the weight's name, or the whole name. */
  skips(module: string): boolean {
    const { library } = this.#target;
    if (library === "transformers") return skipsModule(module, this.#skipped, library);
    const weight = `${module}.weight`;
    return this.#skipped.some((entry) => weight.includes(`${entry}.`) || weight === entry);
  }

  describe(shape: Shape, dtype: DType = "float32"): WeightInfo | null {
    const layout = schemeLayout(this.config.quantType.scheme, shape, dtype);
    return layout && { shape, format: { kind: "quantized", layout }, activations: FLOAT };
  }

  quantize(name: string, dense: HostTensor, pause: Pause): Promise<EncodedWeight> {
    return quantizeScheme(this.config.quantType.scheme, name, dense, pause);
  }

  weightOf(tensor: string): string {
    return torchaoWeightOf(tensor);
  }

  isCompanion(name: string): boolean {
    return isTorchaoCompanion(name);
  }

  isStored(name: string, checkpoint: TensorReader): boolean {
    return isTorchaoWeight(name, checkpoint);
  }

  async describeStored(name: string, checkpoint: TensorReader): Promise<WeightInfo> {
    const { stored, layout } = await readTorchaoLayout(name, checkpoint);
    const { shape } = stored;
    return { shape, format: { kind: "quantized", layout }, activations: FLOAT };
  }

  read(name: string, checkpoint: TensorReader): Promise<EncodedWeight> {
    return readTorchao(name, checkpoint);
  }

  write(name: string, weight: EncodedWeight): NamedTensor[] {
    return writeTorchao(name, weight);
  }

  dequantize(weight: EncodedWeight): HostTensor | null {
    return dequantizeZeroPoint(weight);
  }

  fileMetadata(tensors: readonly WrittenTensor[]): Readonly<Record<string, string>> {
    const { scheme } = this.config.quantType;
    return torchaoMetadata(tensors.map(({ name, shape, dtype, quantized }) => {
      return { name, json: quantized ? schemeJson(scheme, shape, dtype) : null };
    }));
  }
}

/** The config that a file's metadata speaks of; null when no weight is torchao's. */
function detectConfig(checkpoint: TensorReader): Record<string, unknown> | null {
  for (const tensor of checkpoint.entries.keys()) {
    const name = torchaoWeightOf(tensor);
    if (name === tensor || !isTorchaoWeight(name, checkpoint)) continue;
    return { quantType: quantTypeOf(describeTorchao(name, checkpoint)) };
  }
  return null;
}

function quantTypeOf({ form, shape, bits, groupSize, table }: StoredTorchao): TorchAoQuantType {
  const [rows, columns] = shape;
  const whole = groupSize === rows * columns ? "tensor" : groupSize;
  const granularity = groupSize === columns ? "row" : whole;
  if (form === "Int8Tensor") return new Int8WeightOnlyConfig({ granularity });
  const packing = INT4_PACKINGS.find((name) => FORMS[name] === form);
  if (packing) return new Int4WeightOnlyConfig({ groupSize, int4PackingFormat: packing });
  if (form === "IntxUnpackedToInt8Tensor") {
    return new IntxWeightOnlyConfig({ weightDtype: `int${bits}`, granularity: granularity });
  }
  if (form === "Float8Tensor") {
    const weightDtype = table?.[1] === 2 ** -16 ? "float8_e5m2" : "float8_e4m3fn";
    return new Float8WeightOnlyConfig({ weightDtype, granularity });
  }
  const exponentBits = [1, 2, 3, 4, 5].find((exponent) => {
    const mantissa = bits - 1 - exponent;
    return mantissa > 0 && floatxFormat(exponent, mantissa).max === table?.[2 ** (bits - 1) - 1];
  });
  return new FPXWeightOnlyConfig(exponentBits ?? 1, bits - 1 - (exponentBits ?? 1));
}
