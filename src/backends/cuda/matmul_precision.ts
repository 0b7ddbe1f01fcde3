/** How exactly products are computed: which numbers the operands are rounded to. Sums are always float32. */

import { HalftoneError } from "../../errors.ts";

/**
 * Most exact first: operands as they are; with 10 bits of mantissa, in TF32 units; rounded to float16 (beyond
 * 65504 infinite); rounded to bfloat16.
 */
export type MatmulPrecision = "float32" | "tensorfloat32" | "float16" | "bfloat16";

/** All of them. */
export const MATMUL_PRECISIONS: readonly MatmulPrecision[] = [
  "float32",
  "tensorfloat32",
  "float16",
  "bfloat16",
];

/** The type in which a product's operands lie in memory. */
export type OperandType = "float32" | "float16" | "bfloat16";

/** Bytes of an operand's element. */
export const OPERAND_BYTES: Readonly<Record<OperandType, number>> = {
  float32: 4,
  float16: 2,
  bfloat16: 2,
};

/** The type that a precision takes; TF32 units read float32. */
export function operandType(precision: MatmulPrecision): OperandType {
  return precision === "tensorfloat32" ? "float32" : precision;
}

/** Throws `invalid_argument` for anything but a precision or nothing. */
export function checkMatmulPrecision(precision: MatmulPrecision | undefined): void {
  if (precision === undefined || MATMUL_PRECISIONS.includes(precision)) return;
  throw new HalftoneError("invalid_argument", "Cannot compute products in this precision", {
    field: "matmulPrecision",
    found: precision,
    expected: MATMUL_PRECISIONS.join(", "),
  });
}
