/** Packs a kernel's parameters as its struct lies in memory: 64-bit addresses before 32-bit words. */

/** A parameter: an address, an integer or a float. */
export type Parameter =
  | { readonly kind: "address"; readonly value: number }
  | { readonly kind: "integer"; readonly value: number }
  | { readonly kind: "float"; readonly value: number };

/** A device address; 0 is null. */
export function address(value: number): Parameter {
  return { kind: "address", value };
}

/** A 32-bit integer. */
export function integer(value: number): Parameter {
  return { kind: "integer", value };
}

/** A float32. */
export function float(value: number): Parameter {
  return { kind: "float", value };
}

/** 32-bit integers. */
export function integers(...values: readonly number[]): Parameter[] {
  return values.map(integer);
}

/** The struct `Rows` of kernels-cuda/activation.h: an address and a row stride in elements. */
export function rows([place, stride]: readonly [address: number, stride: number]): Parameter[] {
  return [address(place), ...integers(stride, 0)];
}

/** Lays parameters out; pads the end to 8 bytes, as a struct with addresses is. */
export function packParameters(parameters: readonly Parameter[]): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(new ArrayBuffer(packedSize(parameters)));
  const view = new DataView(bytes.buffer);
  let at = 0;
  for (const { kind, value } of parameters) {
    if (kind === "address") {
      if (at % 8 !== 0) throw new RangeError("an address lies across words: reorder the struct");
      view.setBigUint64(at, BigInt(value), true);
    } else if (kind === "integer") view.setInt32(at, value, true);
    else view.setFloat32(at, value, true);
    at += kind === "address" ? 8 : 4;
  }
  return bytes;
}

function packedSize(parameters: readonly Parameter[]): number {
  const bytes = parameters.reduce((sum, { kind }) => sum + (kind === "address" ? 8 : 4), 0);
  return Math.ceil(bytes / 8) * 8;
}
