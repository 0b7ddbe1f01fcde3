/** The element types of GGUF files: ids, names, and how many elements and bytes a block has. */

import type { DType } from "../tensor/dtype.ts";

/** Block types that halftone reads and holds in the one weight layout. */
export type GgufBlockType =
  | "Q4_0"
  | "Q4_1"
  | "Q5_0"
  | "Q5_1"
  | "Q8_0"
  | "Q2_K"
  | "Q3_K"
  | "Q4_K"
  | "Q5_K"
  | "Q6_K"
  | "IQ4_NL"
  | "IQ4_XS"
  | "MXFP4"
  | "NVFP4";

/** Types of one plain number per element. */
export type GgufPlainType = "F32" | "F16" | "BF16" | "F64" | "I8" | "I16" | "I32" | "I64";

/** Every type that is read. */
export type GgufType = GgufPlainType | GgufBlockType;

/** A type as files hold it. */
export interface GgufTypeInfo {
  /** Its name, such as "Q4_K". */
  readonly name: GgufType;
  /** Its number in files. */
  readonly id: number;
  /** Elements of a block; 1 for plain numbers. */
  readonly elements: number;
  /** Bytes of a block. */
  readonly bytes: number;
  /** The element type of plain numbers; undefined for blocks. */
  readonly dtype?: DType;
}

const PLAIN: readonly (readonly [GgufPlainType, number, number, DType])[] = [
  ["F32", 0, 4, "float32"],
  ["F16", 1, 2, "float16"],
  ["I8", 24, 1, "int8"],
  ["I16", 25, 2, "int16"],
  ["I32", 26, 4, "int32"],
  ["I64", 27, 8, "int64"],
  ["F64", 28, 8, "float64"],
  ["BF16", 30, 2, "bfloat16"],
];

const BLOCKS: readonly (readonly [GgufBlockType, number, number, number])[] = [
  ["Q4_0", 2, 32, 18],
  ["Q4_1", 3, 32, 20],
  ["Q5_0", 6, 32, 22],
  ["Q5_1", 7, 32, 24],
  ["Q8_0", 8, 32, 34],
  ["Q2_K", 10, 256, 84],
  ["Q3_K", 11, 256, 110],
  ["Q4_K", 12, 256, 144],
  ["Q5_K", 13, 256, 176],
  ["Q6_K", 14, 256, 210],
  ["IQ4_NL", 20, 32, 18],
  ["IQ4_XS", 23, 256, 136],
  ["MXFP4", 39, 32, 17],
  ["NVFP4", 40, 64, 36],
];

/** Types of the format that are not read, by id. */
export const UNREAD_GGUF_TYPES: ReadonlyMap<number, string> = new Map([
  [9, "Q8_1"],
  [15, "Q8_K"],
  [16, "IQ2_XXS"],
  [17, "IQ2_XS"],
  [18, "IQ3_XXS"],
  [19, "IQ1_S"],
  [21, "IQ3_S"],
  [22, "IQ2_S"],
  [29, "IQ1_M"],
  [34, "TQ1_0"],
  [35, "TQ2_0"],
  [41, "Q1_0"],
  [42, "Q2_0"],
]);

/** All types that are read. */
export const GGUF_TYPES: readonly GgufTypeInfo[] = [
  ...PLAIN.map(([name, id, bytes, dtype]) => ({ name, id, elements: 1, bytes, dtype })),
  ...BLOCKS.map(([name, id, elements, bytes]) => ({ name, id, elements, bytes })),
];

const BY_ID = new Map(GGUF_TYPES.map((type) => [type.id, type]));
const BY_NAME = new Map(GGUF_TYPES.map((type) => [type.name, type]));

/** The type of a number in a file; undefined for one that is not read. */
export function ggufTypeOfId(id: number): GgufTypeInfo | undefined {
  return BY_ID.get(id);
}

/** What a type's blocks are. */
export function ggufTypeInfo(name: GgufType): GgufTypeInfo {
  return BY_NAME.get(name)!;
}
