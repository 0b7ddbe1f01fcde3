/** optimum-quanto as a quantization method: weights only, as Diffusers uses it. */

import type { WeightInfo } from "../ops/graph.ts";
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
import { weightOnlyInfo } from "./quantizer.ts";
import { QuantoConfig, type QuantoDType } from "./quanto_config.ts";
import {
  dequantizeQuanto,
  describeQuanto,
  isQuantoCompanion,
  isQuantoWeight,
  quantizeQuanto,
  quantoLayout,
  quantoMetadata,
  quantoWeightOf,
  readQuanto,
  streamQuanto,
  writeQuanto,
} from "./quanto_tensors.ts";
import { skipsModule } from "./skip_modules.ts";

/** Quanto: float8, int8, int4, int2. */
export const QUANTO: Method = {
  name: "quanto",
  backends: ["quanto"],
  sharedWithTransformers: false,
  accepts: (config) => config instanceof QuantoConfig,
  fromDict: (dict) => QuantoConfig.fromDict(dict),
  create: (config, target) => new QuantoQuantizer(config as QuantoConfig, target),
  skipList: {
    key: "modules_to_not_convert",
    spellings: (_, layers) => layers.map((layer) => layer.split(".").at(-1)!),
  },
  detect: detectConfig,
  formats: [
    format("float8", "float8 e4m3, a scale per row"),
    format("int8", "int8, a scale per row"),
    format("int4", "int4, scale and shift per 128 weights"),
    format("int2", "int2, scale and shift per 128 weights"),
  ],
};

function format(name: QuantoDType, description: string) {
  return { name, description, config: () => new QuantoConfig({ weightsDtype: name }) };
}

class QuantoQuantizer implements Quantizer {
  readonly config: QuantoConfig;
  readonly #target: QuantizerTarget;
  readonly #skipped: readonly string[];

  constructor(config: QuantoConfig, target: QuantizerTarget) {
    this.config = config;
    this.#target = target;
    this.#skipped = [...config.modulesToNotConvert ?? [], ...target.keepInFloat32];
  }

  /** In Diffusers the last name of the module. */
  skips(module: string): boolean {
    const { library } = this.#target;
    if (library === "transformers") return skipsModule(module, this.#skipped, library);
    return this.#skipped.includes(module.split(".").at(-1)!);
  }

  describe(shape: Shape, dtype: DType = "float32"): WeightInfo | null {
    if (shape.length !== 2) return null;
    return weightOnlyInfo(shape, quantoLayout(this.config.weightsDtype, shape, dtype));
  }

  quantize(name: string, dense: HostTensor, pause: Pause): Promise<EncodedWeight> {
    return quantizeQuanto(this.config.weightsDtype, name, dense, pause);
  }

  weightOf(tensor: string): string {
    return quantoWeightOf(tensor);
  }

  isCompanion(name: string, checkpoint: TensorReader): boolean {
    return isQuantoCompanion(name, checkpoint);
  }

  isStored(name: string, checkpoint: TensorReader): boolean {
    return isQuantoWeight(name, checkpoint);
  }

  describeStored(name: string, checkpoint: TensorReader): Promise<WeightInfo> {
    const { shape, layout } = describeQuanto(name, checkpoint, this.#bits);
    return Promise.resolve(weightOnlyInfo(shape, layout));
  }

  read(name: string, checkpoint: TensorReader): Promise<EncodedWeight> {
    return readQuanto(name, checkpoint, this.#bits);
  }

  stream(name: string, checkpoint: PieceReader, put: PutBytes): Promise<StreamedTensor | null> {
    return streamQuanto(name, checkpoint, put, this.#bits);
  }

  write(name: string, weight: EncodedWeight): NamedTensor[] {
    return writeQuanto(name, weight);
  }

  dequantize(weight: EncodedWeight): HostTensor | null {
    return dequantizeQuanto(weight);
  }

  fileMetadata(tensors: readonly WrittenTensor[]): Readonly<Record<string, string>> {
    const isPacked = this.config.weightsDtype === "int4" || this.config.weightsDtype === "int2";
    return isPacked ? quantoMetadata(tensors) : {};
  }

  /** Packed bytes do not say their width. */
  get #bits(): 2 | 4 {
    return this.config.weightsDtype === "int2" ? 2 : 4;
  }
}

/** The config that the keys of a checkpoint speak of; null when no weight is Quanto's. */
function detectConfig(checkpoint: TensorReader): Record<string, unknown> | null {
  for (const [tensor, { dtype, shape }] of checkpoint.entries) {
    const name = quantoWeightOf(tensor);
    const scale = checkpoint.entries.get(`${name}._scale`);
    if (name === tensor || !scale) continue;
    if (tensor === `${name}._data`) return { weights_dtype: dtype === "int8" ? "int8" : "float8" };
    const groups = scale.shape[0] ?? 1;
    return { weights_dtype: shape[0] === Math.ceil(groups / 2) ? "int4" : "int2" };
  }
  return null;
}
