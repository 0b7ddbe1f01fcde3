/** Reads a weight and checks what a backend trusts. */

import { firstNonFinite } from "../../../src/tensor/finite.ts";
import { packedBytes } from "../../../src/quantization/codes.ts";
import { dequantizeRows } from "../../../src/quantization/dequantize.ts";
import { groupCount, weightBytes } from "../../../src/quantization/layout_bytes.ts";
import type {
  QuantizedTensor,
  ScaleData,
  ScaleLayout,
} from "../../../src/quantization/quantized_tensor.ts";
import type { ComponentWeights } from "../../../src/quantization/weights.ts";
import type { HostTensor } from "../../../src/tensor/host_tensor.ts";
import { elementCount } from "../../../src/tensor/shape.ts";

/** Reads a weight, if the component has it. */
export async function readWeight(name: string, weights: ComponentWeights): Promise<void> {
  const info = weights.catalog.lookup(name);
  if (!info) return;
  const { shape, format } = info;
  const bytes = weightBytes(shape, format);
  const stored = await weights.source.read({ name, shape, format, arrangement: "rows", bytes });
  if (stored.kind === "quantized") checkTensor(stored.tensor);
}

/** A backend trusts these sizes. */
function checkTensor({ shape, layout, codes, scale, offset }: QuantizedTensor): void {
  const count = elementCount(shape);
  const groups = groupCount(shape, layout);
  assertEqual("codes", codes.length, packedBytes(count, layout.bits));
  if (layout.value.kind === "table") {
    assertEqual("table", layout.value.table.length, 2 ** layout.bits);
  }
  checkScale("scale", groups, layout.scale, scale);
  assertEqual("offset", offset === null, layout.offset === null);
  if (layout.offset && offset) checkScale("offset", groups, layout.offset, offset);
  if (count > 0) dequantizeRows({ shape, layout, codes, scale, offset }, 0, 1);
}

function checkScale(what: string, groups: number, layout: ScaleLayout, data: ScaleData): void {
  assertEqual(`${what} kind`, data.kind, layout.kind);
  if (layout.kind === "float" && data.kind === "float") {
    assertEqual(`${what} type`, data.values.dtype, layout.dtype);
    assertFinite(what, data.values);
    return assertEqual(what, data.values.size, groups);
  }
  if (layout.kind === "float" || data.kind === "float") return;
  const supers = Math.ceil(groups / layout.superGroupSize);
  assertEqual(`${what} codes`, data.codes.length, packedBytes(groups, layout.bits));
  assertEqual(`${what} super-scales`, data.supers.size, supers);
  assertEqual(`${what} super-scale type`, data.supers.dtype, layout.superDtype);
  assertFinite(what, data.supers);
}

/** One scale that is no number makes every picture black. */
function assertFinite(what: string, values: HostTensor): void {
  assertEqual(`${what} that is not finite, at`, firstNonFinite(values), -1);
}

function assertEqual(what: string, found: unknown, expected: unknown): void {
  if (found !== expected) throw new Error(`${what}: ${found} where ${expected} belongs`);
}
