/** Which config of torchao a checkpoint was made with, by the metadata of its first weight. */

import { floatxFormat } from "./floatx.ts";
import { moduleOf, type TensorReader } from "./quantizer.ts";
import {
  ACTIVATION_SCALE,
  storedActivations,
  type TorchaoActivations,
} from "./torchao_activations.ts";
import {
  Float8DynamicActivationFloat8WeightConfig,
  Int8DynamicActivationInt8WeightConfig,
  Int8DynamicActivationIntxWeightConfig,
  Int8StaticActivationInt8WeightConfig,
} from "./torchao_dynamic.ts";
import { isTorchaoWeight, parsed, torchaoWeightOf } from "./torchao_parts.ts";
import { FORMS } from "./torchao_schemes.ts";
import { describeTorchao, type StoredTorchao } from "./torchao_tensors.ts";
import {
  Float8WeightOnlyConfig,
  FPXWeightOnlyConfig,
  INT4_PACKINGS,
  Int4WeightOnlyConfig,
  Int8WeightOnlyConfig,
  IntxWeightOnlyConfig,
  type TorchAoQuantType,
} from "./torchao_types.ts";

/** The config that a file's metadata speaks of; null when no weight is torchao's. */
export function detectConfig(checkpoint: TensorReader): Record<string, unknown> | null {
  for (const tensor of checkpoint.entries.keys()) {
    const name = torchaoWeightOf(tensor);
    if (name === tensor || !isTorchaoWeight(name, checkpoint)) continue;
    const stored = describeTorchao(name, checkpoint);
    const { _data: data } = parsed(name, checkpoint);
    const activations = storedActivations(name, data);
    const isStatic = checkpoint.entries.has(`${moduleOf(name)}.${ACTIVATION_SCALE}`);
    return {
      quantType: activations ? roundingType(stored, activations, isStatic) : quantTypeOf(stored),
    };
  }
  return null;
}

/** The config of weights whose activations are rounded. */
function roundingType(
  { shape, bits, groupSize, table }: StoredTorchao,
  activations: TorchaoActivations,
  isStatic: boolean,
): TorchAoQuantType {
  const [rows, columns] = shape;
  const weights = groupSize === rows * columns && rows > 1 ? "tensor" : "row";
  if (activations.kind === "int8") {
    const { granularity, mapping: actMappingType, reduceRange } = activations;
    const options = { granularity: [granularity, weights], actMappingType, reduceRange } as const;
    return isStatic
      ? new Int8StaticActivationInt8WeightConfig(options)
      : new Int8DynamicActivationInt8WeightConfig(options);
  }
  if (activations.kind === "float8") {
    const { dtype, granularity, lowerBound } = activations;
    const weightDtype = table?.[1] === 2 ** -16 ? "float8_e5m2" : "float8_e4m3fn";
    return new Float8DynamicActivationFloat8WeightConfig({
      activationDtype: dtype,
      weightDtype,
      granularity,
      activationValueLb: lowerBound,
    });
  }
  return new Int8DynamicActivationIntxWeightConfig({
    weightDtype: `int${bits}`,
    weightGranularity: groupSize === columns ? "row" : groupSize,
  });
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
