/** The three ways in which torchao's safetensors hold int4 weights; torchao_int4.ts has the bytes. */

import type { DType } from "../tensor/dtype.ts";
import { HostTensor } from "../tensor/host_tensor.ts";
import { sameShape, type Shape } from "../tensor/shape.ts";
import { checkFinite } from "./float_slices.ts";
import type { QuantizedLayout, QuantizedTensor } from "./quantized_tensor.ts";
import { type EncodedWeight, moduleOf, type TensorReader } from "./quantizer.ts";
import {
  packTiles,
  tilePaddedShape,
  tileShape,
  unpackScaleAndZero,
  unpackTiles,
} from "./torchao_int4.ts";
import { entryOf, expectDType, flat, invalid, PREFIX, transpose } from "./torchao_parts.ts";
import {
  integerLayout,
  offsetsOf,
  SCALE_AND_ZERO,
  scaleType,
  unsignedLayout,
  ZERO_POINT,
} from "./torchao_schemes.ts";

/** A matrix and its groups. */
export interface Int4Weight {
  readonly shape: readonly [number, number];
  readonly groupSize: number;
}

/** A way of storing. */
interface Int4Form {
  /** Checks the headers of the parts; the type of the dense weight and the layout. */
  describe(name: string, weight: Int4Weight, checkpoint: TensorReader): {
    readonly dtype: DType;
    readonly layout: QuantizedLayout;
  };
  read(
    name: string,
    weight: Int4Weight,
    checkpoint: TensorReader,
  ): Promise<Pick<EncodedWeight, "tensor" | "verbatim">>;
  /** The parts by their suffix. */
  write(weight: EncodedWeight): readonly (readonly [string, HostTensor])[];
}

const QDATA = "_weight_qdata";

const PLAIN: Int4Form = {
  describe(name, { shape, groupSize }, checkpoint) {
    expectPart(name, "qdata", ["int8", "uint8"], [shape[0], shape[1] / 2], checkpoint);
    const dtype = expectScales(name, { shape, groupSize }, checkpoint);
    expectPart(name, "zero_point", [dtype], transposedGroups({ shape, groupSize }), checkpoint);
    const own = { kind: "float", dtype: scaleType(dtype) } as const;
    return { dtype, layout: integerLayout(4, groupSize, own, own) };
  },
  async read(name, weight, checkpoint) {
    const { layout } = PLAIN.describe(name, weight, checkpoint);
    const codes = (await readPart(name, "qdata", checkpoint)).bytes.map((byte) => byte ^ 0x88);
    const scale = flat(transpose(await readFloats(name, "scale", checkpoint)));
    const zero = flat(transpose(await readFloats(name, "zero_point", checkpoint)));
    return { tensor: tensorOf(weight, layout, codes, scale, zero) };
  },
  write({ tensor }) {
    const { rows, scale, offset } = valuesOf(tensor);
    const packed = tensor.codes.map((byte) => byte ^ 0x88); // codes are q + 8, torchao's are q
    return [
      ["qdata", new HostTensor("int8", [rows, tensor.shape[1] / 2], packed)],
      ["scale", transpose(scale)],
      ["zero_point", transpose(offset)],
    ];
  },
};

const PLAIN_INT32: Int4Form = {
  describe(name, weight, checkpoint) {
    const { shape, groupSize } = weight;
    if (shape[1] % 8 !== 0) throw invalid(name, "shape", `[${shape}]`, "columns in multiples of 8");
    expectPart(name, "qdata", ["int32"], [shape[0], shape[1] / 8], checkpoint);
    const dtype = expectScales(name, weight, checkpoint);
    // For NPU the same class holds float zeros and signed codes.
    expectPart(name, "zero_point", ["int8"], transposedGroups(weight), checkpoint);
    const own = { kind: "float", dtype: scaleType(dtype) } as const;
    return { dtype, layout: unsignedLayout(groupSize, own) };
  },
  async read(name, weight, checkpoint) {
    const { layout } = PLAIN_INT32.describe(name, weight, checkpoint);
    const { bytes } = await readPart(name, "qdata", checkpoint);
    const scale = flat(transpose(await readFloats(name, "scale", checkpoint)));
    const zero = transpose(await readPart(name, "zero_point", checkpoint));
    const offset = HostTensor.fromFloat32(offsetsOf(zero.toFloat32(), scale.toFloat32()));
    // Their product may overflow though both are finite.
    checkFinite({ start: 0, values: offset.toFloat32() }, partOf(name, "zero_point"));
    const verbatim = new Map([[ZERO_POINT, zero]]);
    return { tensor: tensorOf(weight, layout, bytes, scale, offset), verbatim };
  },
  write({ tensor, verbatim }) {
    const { rows, scale } = valuesOf(tensor);
    const zero = verbatim!.get(ZERO_POINT)!.reshape(scale.shape);
    return [
      ["qdata", new HostTensor("int32", [rows, tensor.shape[1] / 8], tensor.codes)],
      ["scale", transpose(scale)],
      ["zero_point", transpose(zero)],
    ];
  },
};

const TILE_PACKED: Int4Form = {
  describe(name, { shape, groupSize }, checkpoint) {
    expectPart(name, "qdata", ["int32"], tileShape(shape), checkpoint);
    const [rows, columns] = tilePaddedShape(shape);
    if (columns % groupSize !== 0) {
      throw invalid(name, "block_size", groupSize, `a divisor of ${columns}`);
    }
    const shared = [columns / groupSize, rows, 2];
    expectPart(name, "scale_and_zero", ["bfloat16"], shared, checkpoint);
    const own = { kind: "float", dtype: "bfloat16" } as const;
    return { dtype: "bfloat16", layout: integerLayout(4, groupSize, own, own) };
  },
  async read(name, weight, checkpoint) {
    const { layout } = TILE_PACKED.describe(name, weight, checkpoint);
    const { shape, groupSize } = weight;
    const tiles = await readPart(name, "qdata", checkpoint);
    const packed = await readFloats(name, "scale_and_zero", checkpoint);
    const codes = unpackTiles(tiles.bytes, shape);
    const { scale, zero } = unpackScaleAndZero(packed, shape, groupSize);
    const own = (values: Float32Array) => HostTensor.fromFloat32(values).cast("bfloat16");
    const verbatim = new Map([[SCALE_AND_ZERO, packed]]);
    if (!sameBytes(packTiles(codes, shape), tiles)) verbatim.set(QDATA, tiles);
    return { tensor: tensorOf(weight, layout, codes, own(scale), own(zero)), verbatim };
  },
  write({ tensor, verbatim }) {
    return [
      ["qdata", verbatim!.get(QDATA) ?? packTiles(tensor.codes, tensor.shape)],
      ["scale_and_zero", verbatim!.get(SCALE_AND_ZERO)!],
    ];
  },
};

/** By torchao's class. */
const INT4_FORMS: Readonly<Record<string, Int4Form>> = {
  Int4Tensor: PLAIN,
  Int4PlainInt32Tensor: PLAIN_INT32,
  Int4TilePackedTo4dTensor: TILE_PACKED,
};

/** The way of storing that a class of torchao is; undefined for other classes. */
export function int4Form(form: string | undefined): Int4Form | undefined {
  return form !== undefined && Object.hasOwn(INT4_FORMS, form) ? INT4_FORMS[form] : undefined;
}

function tensorOf(
  { shape }: Int4Weight,
  layout: QuantizedLayout,
  codes: Uint8Array,
  scale: HostTensor,
  offset: HostTensor,
): QuantizedTensor {
  return {
    shape,
    layout,
    codes,
    scale: { kind: "float", values: scale },
    offset: { kind: "float", values: offset },
  };
}

/** Scales and offsets as [rows, groups of a row]. */
function valuesOf({ shape: [rows], scale, offset }: QuantizedTensor) {
  if (scale.kind !== "float" || offset?.kind !== "float") {
    throw new TypeError("int4 weights of torchao have float scales and offsets");
  }
  const matrix = (values: HostTensor) => values.reshape([rows, values.size / rows]);
  return { rows, scale: matrix(scale.values), offset: matrix(offset.values) };
}

function transposedGroups({ shape, groupSize }: Int4Weight): Shape {
  return [shape[1] / groupSize, shape[0]];
}

function expectScales(name: string, weight: Int4Weight, checkpoint: TensorReader): DType {
  const dtypes: readonly DType[] = ["float32", "bfloat16", "float16"];
  return expectPart(name, "scale", dtypes, transposedGroups(weight), checkpoint);
}

function expectPart(
  name: string,
  part: string,
  dtypes: readonly DType[],
  shape: Shape,
  checkpoint: TensorReader,
): DType {
  const entry = entryOf(name, part, checkpoint);
  expectDType(name, entry.dtype, dtypes);
  if (!sameShape(entry.shape, shape)) throw invalid(name, part, `[${entry.shape}]`, `[${shape}]`);
  return entry.dtype;
}

function readPart(name: string, part: string, checkpoint: TensorReader): Promise<HostTensor> {
  return checkpoint.read(partOf(name, part));
}

async function readFloats(
  name: string,
  part: string,
  checkpoint: TensorReader,
): Promise<HostTensor> {
  const tensor = await readPart(name, part, checkpoint);
  checkFinite({ start: 0, values: tensor.toFloat32() }, partOf(name, part));
  return tensor;
}

function partOf(name: string, part: string): string {
  return `${moduleOf(name)}${PREFIX}${part}`;
}

function sameBytes(a: HostTensor, b: HostTensor): boolean {
  return a.bytes.every((byte, index) => byte === b.bytes[index]);
}
