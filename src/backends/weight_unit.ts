/**
 * How a weight lies in a backend's memory: one unit of aligned parts (codes, scales, offsets, tables), made
 * once for all backends whose kernels read raw memory.
 */

import { HalftoneError } from "../errors.ts";
import { type DType, itemSize } from "../tensor/dtype.ts";
import { elementCount } from "../tensor/shape.ts";
import type { HostTensor } from "../tensor/host_tensor.ts";
import type { PlanWeight } from "../plan/plan.ts";
import { packedBytes } from "../quantization/codes.ts";
import { groupCount } from "../quantization/layout_bytes.ts";
import type { CodeValue, ScaleData, ScaleLayout } from "../quantization/quantized_tensor.ts";
import { aligned } from "./alignment.ts";
import type { StoredWeight, WeightRest, WeightSource } from "./backend.ts";

/** Element types the kernels of all backends read, by their number there. */
export const KERNEL_DTYPES: readonly DType[] = [
  "float32",
  "float16",
  "bfloat16",
  "float8_e4m3fn",
  "float8_e5m2",
];
/** Bytes a kernel may read beyond the last code. */
const CODE_SLACK = 16;
/** How the kernels number the kinds of scales. */
export const SCALE_KIND = { float: 0, coded: 1, none: 2 } as const;

/** Where the parts of a unit begin, in bytes from the unit's start. */
export interface UnitLayout {
  readonly bytes: number;
  readonly data: number;
  readonly table: number;
  readonly scale: ScaleParts;
  readonly offset: ScaleParts;
}

/** Where the parts of the scales (or offsets) begin. */
export interface ScaleParts {
  readonly data: number;
  readonly table: number;
  readonly supers: number;
  readonly constant: number;
}

const NO_SCALE: ScaleParts = { data: 0, table: 0, supers: 0, constant: 0 };

/** The type a dense weight is kept in: vectors and types without a kernel become float32. */
export function keptDtype(weight: PlanWeight): DType {
  if (weight.format.kind !== "dense") {
    throw new HalftoneError("plan_invalid", "Cannot keep a quantized weight as dense", {
      tensor: weight.name,
    });
  }
  const { dtype } = weight.format;
  const isMatrix = weight.shape.length > 1;
  return isMatrix && KERNEL_DTYPES.includes(dtype) ? dtype : "float32";
}

/** Lays out parts one after another. */
class PartCounter {
  end = 0;
  take(bytes: number): number {
    const start = this.end;
    this.end = aligned(start + bytes);
    return start;
  }
  /** A stream of codes; its reader takes 16 bytes at a time. */
  codes(count: number, bits: number): number {
    return this.take(packedBytes(count, bits) + CODE_SLACK);
  }
  table(value: CodeValue): number {
    return value.kind === "table" ? this.take(value.table.byteLength) : 0;
  }
  scale(layout: ScaleLayout | null, groups: number): ScaleParts {
    if (layout === null) return NO_SCALE;
    if (layout.kind === "float") {
      return { ...NO_SCALE, data: this.take(groups * itemSize(layout.dtype)) };
    }
    const supers = Math.ceil(groups / layout.superGroupSize);
    return {
      data: this.codes(groups, layout.bits),
      table: this.table(layout.value),
      supers: this.take(supers * itemSize(layout.superDtype)),
      constant: this.take(4),
    };
  }
}

/** The layout of a weight's unit. */
export function unitLayout(weight: PlanWeight): UnitLayout {
  const counter = new PartCounter();
  if (weight.format.kind === "dense") {
    const data = counter.take(elementCount(weight.shape) * itemSize(keptDtype(weight)));
    return { bytes: counter.end, data, table: 0, scale: NO_SCALE, offset: NO_SCALE };
  }
  const { layout } = weight.format;
  const groups = groupCount(weight.shape, layout);
  const data = counter.codes(elementCount(weight.shape), layout.bits);
  const table = counter.table(layout.value);
  const scale = counter.scale(layout.scale, groups);
  const offset = counter.scale(layout.offset, groups);
  return { bytes: counter.end, data, table, scale, offset };
}

/**
 * Reads a weight into its unit: piece by piece where the source can, so that nobody holds it as a whole.
 * `unit` gives a view of the unit, which may be another one after a wait.
 */
export async function readUnit(
  weight: PlanWeight,
  source: WeightSource,
  unit: () => Uint8Array,
): Promise<void> {
  const { data } = unitLayout(weight);
  const rest = isKeptAsItIs(weight) && source.stream
    ? await source.stream(weight, (bytes, start) => unit().set(bytes, data + start))
    : null;
  if (rest) writeRest(weight, rest, unit());
  else writeUnit(weight, await source.read(weight), unit());
}

/** Whether the elements or codes of the plan are those of the unit. */
function isKeptAsItIs(weight: PlanWeight): boolean {
  return weight.format.kind === "quantized" || weight.format.dtype === keptDtype(weight);
}

/** Writes a stored weight into its unit. */
export function writeUnit(weight: PlanWeight, stored: StoredWeight, unit: Uint8Array): void {
  const { data } = unitLayout(weight);
  if (stored.kind === "dense") {
    checkShape(weight, stored.tensor.shape, stored.tensor.dtype);
    return unit.set(stored.tensor.cast(keptDtype(weight)).bytes, data);
  }
  checkShape(weight, stored.tensor.shape, "quantized");
  unit.set(stored.tensor.codes, data);
  writeRest(weight, stored, unit);
}

/** Writes what a weight has beside its elements or codes. */
function writeRest(weight: PlanWeight, rest: WeightRest, unit: Uint8Array): void {
  if (rest.kind === "dense") return;
  const { layout, scale, offset } = rest.tensor;
  const parts = unitLayout(weight);
  writeTable(unit, parts.table, layout.value);
  writeScale(unit, parts.scale, layout.scale, scale);
  if (layout.offset && offset) writeScale(unit, parts.offset, layout.offset, offset);
}

function checkShape(weight: PlanWeight, shape: readonly number[], kind: string): void {
  const expected = weight.format.kind === "dense" ? weight.format.dtype : "quantized";
  if (elementCount(shape) === elementCount(weight.shape) && kind === expected) return;
  throw new HalftoneError("tensor_shape_mismatch", "Cannot load a weight", {
    tensor: weight.name,
    found: `${kind} [${shape}]`,
    expected: `${expected} [${weight.shape}]`,
  });
}

function writeTable(unit: Uint8Array, at: number, value: CodeValue): void {
  if (value.kind === "table") unit.set(bytesOf(value.table), at);
}

function writeScale(unit: Uint8Array, at: ScaleParts, layout: ScaleLayout, data: ScaleData): void {
  if (layout.kind === "float" && data.kind === "float") {
    return unit.set(scaleBytes(data.values, layout.dtype), at.data);
  }
  if (layout.kind === "coded" && data.kind === "coded") {
    unit.set(data.codes, at.data);
    writeTable(unit, at.table, layout.value);
    unit.set(scaleBytes(data.supers, layout.superDtype), at.supers);
    return unit.set(bytesOf(Float32Array.of(data.constant)), at.constant);
  }
  throw new HalftoneError("plan_invalid", "Cannot load a weight: scales differ from their layout");
}

function scaleBytes(values: HostTensor, dtype: DType): Uint8Array {
  return values.cast(dtype).bytes;
}

function bytesOf(table: Float32Array): Uint8Array {
  return new Uint8Array(table.buffer, table.byteOffset, table.byteLength);
}
