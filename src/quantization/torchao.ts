/** torchao as a quantization method: its formats on the one layout, activations float or rounded. */

import { HalftoneError } from "../errors.ts";
import type { WeightInfo } from "../ops/graph.ts";
import type { ActivationMode } from "../ops/activation_mode.ts";
import type { DType } from "../tensor/dtype.ts";
import type { HostTensor } from "../tensor/host_tensor.ts";
import type { Shape } from "../tensor/shape.ts";
import type { Pause } from "./pause.ts";
import type {
  EncodedWeight,
  Method,
  NamedTensor,
  PieceReader,
  PutBytes,
  Quantizer,
  QuantizerTarget,
  StreamedTensor,
  TensorReader,
  WrittenTensor,
} from "./quantizer.ts";
import { skipsModule } from "./skip_modules.ts";
import { staticScaleParts, torchaoMode } from "./torchao_activations.ts";
import { TorchAoConfig } from "./torchao_config.ts";
import { detectConfig } from "./torchao_detect.ts";
import { dequantizeZeroPoint } from "./torchao_dequantize.ts";
import { quantizeScheme, schemeLayout } from "./torchao_schemes.ts";
import { schemeJson, torchaoMetadata } from "./torchao_metadata.ts";
import { isTorchaoCompanion, isTorchaoWeight, torchaoWeightOf } from "./torchao_parts.ts";
import {
  readTorchao,
  readTorchaoActivations,
  readTorchaoLayout,
  streamTorchao,
  writeTorchao,
} from "./torchao_tensors.ts";
import { Int4WeightOnlyConfig, type Int4WeightOnlyOptions } from "./torchao_types.ts";

/** torchao: int8, int4, 1 to 7 bit integers, float8 and small floats. */
export const TORCHAO: Method = {
  name: "torchao",
  backends: ["torchao"],
  sharedWithTransformers: false,
  accepts: (config) => config instanceof TorchAoConfig,
  fromDict: (dict) => TorchAoConfig.fromDict(dict),
  create: (config, target) => new TorchAoQuantizer(config as TorchAoConfig, target),
  skipList: {
    key: "modules_to_not_convert",
    spellings: (module) => [module, `${module}.weight`],
  },
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
    format("int8dq", "int8, a scale per row; activations int8 per token"),
    format("int4dq", "int4, a scale per 32 weights; activations int8 per token"),
    format("float8dq", "float8 e4m3, a scale for all; activations likewise"),
    format("float8dq_e4m3_row", "float8 e4m3, a scale per row; activations likewise"),
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
    const { scheme, activations, activationScale = null, multipleOf = 1 } = this.config.quantType;
    if (shape.some((size) => size % multipleOf !== 0)) return null;
    const layout = schemeLayout(scheme, shape, dtype);
    const mode = activations ? torchaoMode(activations, activationScale) : FLOAT;
    return layout && { shape, format: { kind: "quantized", layout }, activations: mode };
  }

  async quantize(name: string, dense: HostTensor, pause: Pause): Promise<EncodedWeight> {
    const { scheme, activations, activationScale } = this.config.quantType;
    if (activationScale === null) throw missingScale(name);
    const weight = await quantizeScheme(scheme, name, dense, pause);
    if (!activationScale || activations?.kind !== "int8") return weight;
    const parts = staticScaleParts(activationScale, activations.mapping);
    return { ...weight, verbatim: new Map([...weight.verbatim ?? [], ...parts]) };
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
    const { activations, fixed } = await readTorchaoActivations(name, checkpoint);
    const { shape } = stored;
    const mode = activations ? torchaoMode(activations, fixed) : FLOAT;
    return { shape, format: { kind: "quantized", layout }, activations: mode };
  }

  read(name: string, checkpoint: TensorReader): Promise<EncodedWeight> {
    return readTorchao(name, checkpoint);
  }

  stream(name: string, checkpoint: PieceReader, put: PutBytes): Promise<StreamedTensor | null> {
    return streamTorchao(name, checkpoint, put);
  }

  write(name: string, weight: EncodedWeight): NamedTensor[] {
    return writeTorchao(name, weight);
  }

  dequantize(weight: EncodedWeight): HostTensor | null {
    return dequantizeZeroPoint(weight);
  }

  fileMetadata(tensors: readonly WrittenTensor[]): Readonly<Record<string, string>> {
    const { quantType } = this.config;
    return torchaoMetadata(tensors.map(({ name, shape, dtype, quantized }) => {
      return { name, json: quantized ? schemeJson(quantType, shape, dtype) : null };
    }));
  }
}

function missingScale(tensor: string): HalftoneError {
  return new HalftoneError(
    "quantization_config",
    "Cannot quantize a weight for static activations",
    {
      tensor,
      field: "act_quant_scale",
      found: "nothing",
      expected: "the scale of the activations",
      remedy: "Give actQuantScale, or read weights that have scales of their own",
    },
  );
}
