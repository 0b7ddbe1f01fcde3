/** Describes weights to the kernels: the structs of kernels-cuda/weight.h, field by field. */

import type { PlanWeight } from "../../plan/plan.ts";
import type { CodeValue, ScaleLayout } from "../../quantization/quantized_tensor.ts";
import { invalid, type MatrixView } from "../operand_view.ts";
import { weightMatrix } from "../step_operands.ts";
import {
  keptDtype,
  KERNEL_DTYPES,
  SCALE_KIND,
  type ScaleParts,
  unitLayout,
} from "../weight_unit.ts";
import { address, float, integers, type Parameter } from "./parameters.ts";

/** Elements that the kernels' 32-bit divisions reach. */
const LARGEST_COUNT = 2 ** 32 - 1;

/** The highest bit of a code around 128, the other way round in a signed number. */
const SIGN_BIT = 0x80;

/** A weight whose unit lies at `unit`; its values may come from another table than the unit's, its codes be signed. */
export function describeWeight(
  weight: PlanWeight,
  unit: number,
  { table = unit + unitLayout(weight).table, isSigned }: {
    readonly table?: number | undefined;
    readonly isSigned: boolean;
  },
): Parameter[] {
  const { rows, columns } = weightMatrix(weight);
  if (rows * columns > LARGEST_COUNT) throw invalid("a weight has too many elements", weight.name);
  if (weight.format.kind === "dense") {
    return describeDense(KERNEL_DTYPES.indexOf(keptDtype(weight)), {
      address: unit,
      rows,
      columns,
      stride: columns,
    });
  }
  const { layout } = weight.format;
  const parts = unitLayout(weight);
  const hasTable = layout.value.kind === "table";
  return [
    address(unit + parts.data),
    address(hasTable ? table : 0),
    ...integers(1, 0, rows, columns, columns, layout.bits, hasTable ? 1 : 0),
    float(zeroPoint(layout.value)),
    ...integers(layout.groupSize | 0, isSigned ? SIGN_BIT : 0), // unsigned in the kernel
    ...describeScales(layout.scale, unit, parts.scale),
    ...describeScales(layout.offset, unit, parts.offset),
  ];
}

/** A float32 matrix in the arena that serves as a weight. */
export function describeMatrix(matrix: MatrixView): Parameter[] {
  return describeDense(0, matrix);
}

function describeDense(dtype: number, matrix: MatrixView): Parameter[] {
  const { rows, columns, stride } = matrix;
  return [
    address(matrix.address),
    address(0),
    ...integers(0, dtype, rows, columns, stride, 0, 0, 0, 0, 0),
    ...NO_SCALES,
    ...NO_SCALES,
  ];
}

const NO_SCALES: readonly Parameter[] = [
  ...[0, 0, 0, 0].map(address),
  ...integers(SCALE_KIND.none, 0, 0, 0, 0, 0, 0, 0),
];

function describeScales(layout: ScaleLayout | null, unit: number, parts: ScaleParts): Parameter[] {
  if (layout === null) return [...NO_SCALES];
  const data = address(unit + parts.data);
  if (layout.kind === "float") {
    return [
      data,
      ...[0, 0, 0].map(address),
      ...integers(SCALE_KIND.float, KERNEL_DTYPES.indexOf(layout.dtype), 0, 0, 0),
      float(layout.multiplier ?? 1),
      ...integers(1, 0),
    ];
  }
  const hasTable = layout.value.kind === "table";
  return [
    data,
    address(hasTable ? unit + parts.table : 0),
    address(unit + parts.supers),
    address(unit + parts.constant),
    ...integers(
      SCALE_KIND.coded,
      KERNEL_DTYPES.indexOf(layout.superDtype),
      layout.bits,
      hasTable ? 1 : 0,
    ),
    float(zeroPoint(layout.value)),
    float(1),
    ...integers(layout.superGroupSize, 0),
  ];
}

function zeroPoint(value: CodeValue): number {
  return value.kind === "integer" ? value.zeroPoint : 0;
}
