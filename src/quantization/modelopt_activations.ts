/**
 * Rounded activations of ModelOpt: what X.input_quantizer does (tensor_quant.py). With a calibrated
 * X.input_quantizer._amax the scale is known before; without one it is found in all of x at every run.
 *
 *     INT8, INT4  code = clamp(round(x * (127 / amax)), -128, 127) (7, -8), x' = code / (127 / amax)
 *     FP8         code = e4m3(clamp(x * (448 / amax), -448, 448)), x' = code * (1 / (448 / amax))
 *
 * An amax of at most 2^-24 makes all integers 0, and is 1 for FP8.
 */

import { HalftoneError } from "../errors.ts";
import type { QuantizedActivations } from "../ops/activation_mode.ts";
import type { HostTensor } from "../tensor/host_tensor.ts";
import { fp8Scale, SMALLEST_AMAX } from "./modelopt_scales.ts";
import { moduleOf, type TensorReader } from "./quantizer.ts";

/** The types that activations may be rounded to. */
export type ModelOptActivationType = "FP8" | "INT8" | "INT4";

/** All of them. */
export const ACTIVATION_TYPES: readonly ModelOptActivationType[] = ["FP8", "INT8", "INT4"];

/** What follows the module's name in the name of a calibrated range. */
export const INPUT_AMAX = "input_quantizer._amax";

/** The largest code (of FP8: the largest value). */
const LEVELS: Readonly<Record<ModelOptActivationType, number>> = { FP8: 448, INT8: 127, INT4: 7 };

/** The mode of the linear op; `amax` is null where it is found at every run. */
export function modelOptMode(
  type: ModelOptActivationType,
  amax: number | null,
): QuantizedActivations {
  const levels = LEVELS[type];
  return {
    kind: "quantized",
    dtype: type === "FP8" ? "float8_e4m3fn" : "int8",
    granularity: "tensor",
    lowest: type === "FP8" ? -levels : -levels - 1,
    highest: levels,
    scale: amax === null
      ? { kind: "dynamic", mapping: "symmetric", levels, least: 0, rounding: "ratio" }
      : staticScale(type, levels, amax),
  };
}

function staticScale(type: ModelOptActivationType, levels: number, amax: number) {
  if (amax <= SMALLEST_AMAX && type !== "FP8") {
    return { kind: "static", scale: 0, inverse: 0, zero: 0 } as const;
  }
  const inverse = type === "FP8" ? fp8Scale(amax) : Math.fround(levels / Math.fround(amax));
  return { kind: "static", scale: Math.fround(1 / inverse), inverse, zero: 0 } as const;
}

/** The calibrated range of a stored weight's input; undefined where there is none. Throws `unsupported`. */
export async function readInputAmax(
  weight: string,
  checkpoint: TensorReader,
): Promise<HostTensor | undefined> {
  const tensor = `${moduleOf(weight)}.${INPUT_AMAX}`;
  const header = checkpoint.entries.get(tensor);
  if (header === undefined) return undefined;
  const found = await checkpoint.read(tensor);
  const [amax] = found.size === 1 ? found.toFloat32() : [NaN];
  if (amax >= 0 && amax < Infinity) return found;
  throw new HalftoneError("unsupported", "Cannot round activations by such a range", {
    file: header.file,
    tensor,
    found: found.size === 1 ? amax : `[${found.shape}]`,
    expected: "one number of at least 0",
  });
}
