/**
 * GGUF's blocks as the one weight layout, and back byte for byte. A block type is a row of this table:
 * how wide its codes are and what they stand for, where its bits lie, and how its groups are scaled.
 * After ggml's ggml-common.h and ggml-quants.c.
 */

import { fromFloat32 } from "../tensor/convert.ts";
import { HostTensor } from "../tensor/host_tensor.ts";
import {
  bitPairs,
  type CodePlanes,
  eightScales,
  nibbleHalves,
  nibbleOfBytes,
  plainBytes,
  signedBytes,
  sixBits,
  sixteenScales,
  splitScales,
  withBitPerByte,
  withFifthBit,
} from "./gguf_planes.ts";
import type { GgufBlockType } from "./gguf_types.ts";
import type { CodeValue, QuantizedLayout, ScaleLayout } from "./quantized_tensor.ts";

/** The scales (or offsets) of a block. */
export type BlockScale =
  /** One float16 at a byte. */
  | { readonly kind: "float"; readonly at: number }
  /** A code per group, times a float16 at a byte (1 without); offsets are subtracted, so negated. */
  | {
    readonly kind: "coded";
    readonly bits: number;
    readonly value: CodeValue;
    readonly groups: number;
    readonly planes: CodePlanes;
    readonly superAt: number | null;
    readonly negated?: boolean;
  };

/** A type of block. */
export interface GgufBlock {
  /** Bits of a code. */
  readonly bits: number;
  readonly value: CodeValue;
  /** Elements of a group. */
  readonly groupSize: number;
  readonly planes: CodePlanes;
  readonly scale: BlockScale;
  readonly offset: BlockScale | null;
}

/** Values of IQ4_NL and IQ4_XS. */
export const IQ4_VALUES: Float32Array = Float32Array.of(
  -127,
  -104,
  -83,
  -65,
  -49,
  -35,
  -22,
  -10,
  1,
  13,
  25,
  38,
  53,
  69,
  89,
  113,
);

/** Twice the values of e2m1; the scales of MXFP4 and NVFP4 are halved. */
const FP4_VALUES = Float32Array.of(0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12);

/** Half of 2^(code - 127), the scales of MXFP4. */
const HALF_POWERS = Float32Array.from({ length: 256 }, (_, code) => 2 ** (code - 128));

/** Half of unsigned e4m3 numbers; the eighth bit and the code of NaN mean nothing in ggml. */
export const HALF_E4M3: Float32Array = Float32Array.from({ length: 256 }, (_, code) => {
  if (code === 0 || code === 0x7f) return 0;
  const [exponent, mantissa] = [code >> 3 & 15, code & 7];
  return exponent === 0 ? mantissa * 2 ** -10 : (1 + mantissa / 8) * 2 ** (exponent - 8);
});

const integer = (zeroPoint: number): CodeValue => ({ kind: "integer", zeroPoint });
const table = (values: Float32Array): CodeValue => ({ kind: "table", table: values });
const float = (at: number): BlockScale => ({ kind: "float", at });

/** Blocks of 32 elements with one scale. */
function small(
  bits: number,
  value: CodeValue,
  planes: CodePlanes,
  offset: BlockScale | null = null,
): GgufBlock {
  return { bits, value, groupSize: 32, planes, scale: float(0), offset };
}

/** Scales and minima of Q4_K and Q5_K. */
function scaleAndMinimum(): Pick<GgufBlock, "scale" | "offset"> {
  const part = (which: 0 | 1): BlockScale => ({
    kind: "coded",
    bits: 6,
    value: integer(0),
    groups: 8,
    planes: eightScales(4, which),
    superAt: 2 * which,
    negated: which === 1,
  });
  return { scale: part(0), offset: part(1) };
}

/** Coded scales without a float beside them: MXFP4, NVFP4. */
function bare(values: Float32Array, groups: number): BlockScale {
  return {
    kind: "coded",
    bits: 8,
    value: table(values),
    groups,
    planes: plainBytes(0, groups),
    superAt: null,
  };
}

/** Every type of block. */
export const GGUF_BLOCKS: Readonly<Record<GgufBlockType, GgufBlock>> = {
  Q4_0: small(4, integer(8), nibbleHalves(2, 16, 32)),
  Q4_1: small(4, integer(0), nibbleHalves(4, 16, 32), float(2)),
  Q5_0: small(5, integer(16), withFifthBit(nibbleHalves(6, 16, 32), 2)),
  Q5_1: small(5, integer(0), withFifthBit(nibbleHalves(8, 16, 32), 4), float(2)),
  Q8_0: small(8, integer(128), signedBytes(2, 32)),
  Q2_K: {
    bits: 2,
    value: integer(0),
    groupSize: 16,
    planes: bitPairs(16),
    scale: nibbleScale(0, 80),
    offset: nibbleScale(4, 82),
  },
  Q3_K: {
    bits: 3,
    value: integer(4),
    groupSize: 16,
    planes: withBitPerByte(bitPairs(32), 0, 2),
    scale: {
      kind: "coded",
      bits: 6,
      value: integer(32),
      groups: 16,
      planes: sixteenScales(96),
      superAt: 108,
    },
    offset: null,
  },
  Q4_K: {
    bits: 4,
    value: integer(0),
    groupSize: 32,
    planes: nibbleHalves(16, 32, 256),
    ...scaleAndMinimum(),
  },
  Q5_K: {
    bits: 5,
    value: integer(0),
    groupSize: 32,
    planes: withBitPerByte(nibbleHalves(48, 32, 256), 16, 4),
    ...scaleAndMinimum(),
  },
  Q6_K: {
    bits: 6,
    value: integer(32),
    groupSize: 16,
    planes: sixBits(0, 128),
    scale: {
      kind: "coded",
      bits: 8,
      value: integer(128),
      groups: 16,
      planes: signedBytes(192, 16),
      superAt: 208,
    },
    offset: null,
  },
  IQ4_NL: small(4, table(IQ4_VALUES), nibbleHalves(2, 16, 32)),
  IQ4_XS: {
    bits: 4,
    value: table(IQ4_VALUES),
    groupSize: 32,
    planes: nibbleHalves(8, 16, 256),
    scale: {
      kind: "coded",
      bits: 6,
      value: integer(32),
      groups: 8,
      planes: splitScales(2, 4),
      superAt: 0,
    },
    offset: null,
  },
  MXFP4: {
    bits: 4,
    value: table(FP4_VALUES),
    groupSize: 32,
    planes: nibbleHalves(1, 16, 32),
    scale: bare(HALF_POWERS, 1),
    offset: null,
  },
  NVFP4: {
    bits: 4,
    value: table(FP4_VALUES),
    groupSize: 16,
    planes: nibbleHalves(4, 8, 64),
    scale: bare(HALF_E4M3, 4),
    offset: null,
  },
};

/** Q2_K: scales in low nibbles, minima in high ones. */
function nibbleScale(shift: 0 | 4, superAt: number): BlockScale {
  return {
    kind: "coded",
    bits: 4,
    value: integer(0),
    groups: 16,
    planes: nibbleOfBytes(0, 16, shift),
    superAt,
    negated: shift === 4,
  };
}

/** The layout of a matrix of `blocks` blocks. */
export function ggufLayout(type: GgufBlockType, blocks: number): QuantizedLayout {
  const { bits, value, groupSize, scale, offset } = GGUF_BLOCKS[type];
  return {
    bits,
    value,
    groupSize,
    scale: scaleLayout(scale, blocks),
    offset: offset && scaleLayout(offset, blocks),
  };
}

function scaleLayout(scale: BlockScale, blocks: number): ScaleLayout {
  if (scale.kind === "float") return { kind: "float", dtype: "float16" };
  const { bits, value, groups, superAt } = scale;
  return superAt === null
    // One super scale of 1 for all groups.
    ? { kind: "coded", bits, value, superGroupSize: groups * blocks, superDtype: "float32" }
    : { kind: "coded", bits, value, superGroupSize: groups, superDtype: "float16" };
}

/** The type whose blocks a layout can be written as; null when there is none. */
export function ggufTypeOfLayout(layout: QuantizedLayout): GgufBlockType | null {
  const types = Object.keys(GGUF_BLOCKS) as GgufBlockType[];
  return types.find((type) => isLayoutOf(GGUF_BLOCKS[type], layout)) ?? null;
}

function isLayoutOf(block: GgufBlock, layout: QuantizedLayout): boolean {
  return block.bits === layout.bits && block.groupSize === layout.groupSize &&
    isSameValue(block.value, layout.value) && isScaleOf(block.scale, layout.scale) &&
    isScaleOf(block.offset, layout.offset);
}

function isScaleOf(scale: BlockScale | null, layout: ScaleLayout | null): boolean {
  if (scale === null || layout === null) return scale === layout;
  if (scale.kind === "float" || layout.kind === "float") {
    return scale.kind === layout.kind && layout.kind === "float" && layout.dtype === "float16" &&
      layout.multiplier === undefined;
  }
  const { superGroupSize, superDtype } = layout;
  return scale.bits === layout.bits && isSameValue(scale.value, layout.value) &&
    (scale.superAt === null
      ? superDtype === "float32"
      : superDtype === "float16" && superGroupSize === scale.groups);
}

function isSameValue(a: CodeValue, b: CodeValue): boolean {
  if (a.kind === "integer") return b.kind === "integer" && a.zeroPoint === b.zeroPoint;
  return b.kind === "table" && a.table.length === b.table.length &&
    a.table.every((value, code) => Object.is(value, b.table[code]));
}

/** The super scale of formats that have none. */
export function unitScale(): HostTensor {
  return new HostTensor("float32", [1], fromFloat32("float32", Float32Array.of(1)));
}
