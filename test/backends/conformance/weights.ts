/** Random weights in every storage, each with the float64 values that it stands for. */

import { HalftoneError } from "../../../src/errors.ts";
import type { StoredWeight, WeightSource } from "../../../src/backends/backend.ts";
import type { ActivationMode } from "../../../src/ops/activation_mode.ts";
import type { WeightCatalog } from "../../../src/ops/graph.ts";
import type { PlanWeight, WeightFormat } from "../../../src/plan/plan.ts";
import type {
  CodeValue,
  QuantizedLayout,
  ScaleData,
  ScaleLayout,
} from "../../../src/quantization/quantized_tensor.ts";
import { HostTensor } from "../../../src/tensor/host_tensor.ts";
import type { Shape } from "../../../src/tensor/shape.ts";
import type { Random } from "./random.ts";
import { type FloatDType, randomFloats } from "./small_floats.ts";

/** A weight as a checkpoint would hold it. */
export interface TestWeight {
  readonly shape: Shape;
  readonly format: WeightFormat;
  readonly stored: StoredWeight;
  /** What it stands for, row-major. */
  readonly values: Float64Array;
}

/** Weights of a test by name: a catalog for capture and a source for loading. */
export class TestWeights implements WeightCatalog, WeightSource {
  readonly #weights = new Map<string, TestWeight>();
  readonly #activations: ActivationMode;

  constructor(activations: ActivationMode = { kind: "float" }) {
    this.#activations = activations;
  }

  add(name: string, weight: TestWeight): TestWeight {
    this.#weights.set(name, weight);
    return weight;
  }

  lookup(name: string) {
    const weight = this.#weights.get(name);
    return weight && { ...weight, activations: this.#activations };
  }

  read(plan: PlanWeight): Promise<StoredWeight> {
    const weight = this.#weights.get(plan.name);
    if (!weight) throw new HalftoneError("missing_tensor", `no test weight ${plan.name}`);
    if (plan.arrangement === "convolution") return Promise.resolve(arranged(plan, weight));
    if (plan.shape.length > 1) return Promise.resolve(weight.stored);
    return Promise.resolve(dense(Float32Array.from(weight.values), plan.shape));
  }
}

/** A dense weight of random values. */
export function denseWeight(
  random: Random,
  dtype: FloatDType,
  shape: Shape,
  options: { scale?: number; positive?: boolean } = {},
): TestWeight {
  const { tensor, values } = randomFloats(random, dtype, shape, options);
  return { shape, values, format: { kind: "dense", dtype }, stored: { kind: "dense", tensor } };
}

/** A quantized weight with random scales and codes (or these); a tenth of the groups are empty (scale 0). */
export function quantizedWeight(
  random: Random,
  shape: readonly [number, number],
  layout: QuantizedLayout,
  codeAt = (_index: number): number => random.integer(0, 2 ** layout.bits - 1),
): TestWeight {
  const count = shape[0] * shape[1];
  const groups = Math.ceil(count / layout.groupSize);
  const codes = Array.from({ length: count }, (_, index) => codeAt(index));
  const scale = randomScale(random, layout.scale, groups, true);
  const offset = layout.offset && randomScale(random, layout.offset, groups, false);
  const values = codes.map((code, index) => {
    const group = Math.floor(index / layout.groupSize);
    let value = Math.fround(valueOf(layout.value, code) * scale.values[group]);
    const multiplier = layout.scale.kind === "float" ? layout.scale.multiplier ?? 1 : 1;
    value = Math.fround(value * multiplier);
    return offset ? Math.fround(value + offset.values[group]) : value;
  });
  const tensor = {
    shape,
    layout,
    codes: packStream(codes, layout.bits),
    scale: scale.data,
    offset: offset && offset.data,
  };
  return {
    shape,
    values: Float64Array.from(values),
    format: { kind: "quantized", layout },
    stored: { kind: "quantized", tensor },
  };
}

function randomScale(
  random: Random,
  layout: ScaleLayout,
  groups: number,
  positive: boolean,
): { data: ScaleData; values: number[] } {
  if (layout.kind === "float") {
    const { tensor, values } = randomFloats(random, layout.dtype, [groups], { positive });
    return { data: { kind: "float", values: tensor }, values: [...values] };
  }
  const codes = Array.from({ length: groups }, () => random.integer(0, 2 ** layout.bits - 1));
  const superCount = Math.ceil(groups / layout.superGroupSize);
  const supers = randomFloats(random, layout.superDtype, [superCount], { positive });
  const constant = random.pick([0, 0.4375, Math.fround(-0.3)]);
  const values = codes.map((code, group) => {
    const superScale = supers.values[Math.floor(group / layout.superGroupSize)];
    const product = Math.fround(valueOf(layout.value, code) * superScale);
    return Math.fround(product + constant);
  });
  const packed = packStream(codes, layout.bits);
  return { data: { kind: "coded", codes: packed, supers: supers.tensor, constant }, values };
}

function valueOf(value: CodeValue, code: number): number {
  return value.kind === "integer" ? code - value.zeroPoint : value.table[code];
}

/** Codes into the documented bit stream, one bit at a time. */
function packStream(codes: readonly number[], bits: number): Uint8Array {
  const bytes = new Uint8Array(Math.ceil(codes.length * bits / 8));
  codes.forEach((code, index) => {
    for (let bit = 0; bit < bits; bit++) {
      const position = index * bits + bit;
      if (code & (1 << bit)) bytes[position >> 3] |= 1 << (position % 8);
    }
  });
  return bytes;
}

/** [out, in, kh, kw] brought to [out, kh, kw, in], float32. */
function arranged(plan: PlanWeight, weight: TestWeight): StoredWeight {
  const [out, channels, height, width] = weight.shape;
  const brought = new Float32Array(weight.values.length);
  let from = 0;
  for (let o = 0; o < out; o++) {
    for (let c = 0; c < channels; c++) {
      for (let y = 0; y < height; y++) {
        for (let x = 0; x < width; x++) {
          brought[((o * height + y) * width + x) * channels + c] = weight.values[from++];
        }
      }
    }
  }
  return dense(brought, plan.shape);
}

function dense(values: Float32Array, shape: Shape): StoredWeight {
  return { kind: "dense", tensor: HostTensor.fromFloat32(values, shape) };
}
