import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { fromFloat32, toFloat32 } from "../../src/tensor/convert.ts";
import { HostTensor } from "../../src/tensor/host_tensor.ts";
import { type DType, DTYPES, itemSize } from "../../src/tensor/dtype.ts";

/** Written by test/goldens/make_dtype_goldens.py with PyTorch. */
interface Goldens {
  tails: number[];
  decode: Record<string, string>;
  encode_grid: Record<string, string>;
  encode_midpoints: Record<string, string>;
  int64: { values: string[]; float32_bits: number[] };
}

const goldens = JSON.parse(
  readFileSync(new URL("../goldens/dtype_goldens.json", import.meta.url), "utf8"),
) as Goldens;

const SMALL: DType[] = ["float16", "bfloat16", "float8_e4m3fn", "float8_e5m2"];

function sha256(array: ArrayBufferView): string {
  const bytes = new Uint8Array(array.buffer, array.byteOffset, array.byteLength);
  return createHash("sha256").update(bytes).digest("hex");
}

function allCodes(dtype: DType): Uint8Array {
  if (itemSize(dtype) === 1) return Uint8Array.from({ length: 256 }, (_, code) => code);
  return new Uint8Array(Uint16Array.from({ length: 65536 }, (_, code) => code).buffer);
}

function grid(): Float32Array {
  const words = goldens.tails.flatMap((tail) =>
    Array.from({ length: 65536 }, (_, i) => i * 65536 + tail)
  );
  return new Float32Array(Uint32Array.from(words).buffer).filter((value) => !Number.isNaN(value));
}

function midpoints(dtype: DType): Float32Array {
  const decoded = toFloat32(dtype, allCodes(dtype));
  const values = [...new Set(decoded.filter((value) => Number.isFinite(value) && value >= 0))];
  values.sort((a, b) => a - b);
  const middle = values.slice(1).map((value, i) => Math.fround((value + values[i]) / 2));
  const words = new Uint32Array(Float32Array.from(middle).buffer);
  const near = [-1, 0, 1].flatMap((step) => Array.from(words, (word) => word + step));
  const around = new Float32Array(Uint32Array.from(near).buffer);
  const both = [...around, ...around.map((value) => -value)];
  return Float32Array.from(both).filter((value) => !Number.isNaN(value));
}

for (const dtype of SMALL) {
  test(`every ${dtype} code decodes as PyTorch decodes it`, () => {
    assert.equal(sha256(toFloat32(dtype, allCodes(dtype))), goldens.decode[dtype]);
  });

  test(`${dtype} rounds a grid over all float32 exponents as PyTorch does`, () => {
    assert.equal(sha256(fromFloat32(dtype, grid())), goldens.encode_grid[dtype]);
  });

  test(`${dtype} rounds all midpoints and their neighbours as PyTorch does`, () => {
    assert.equal(sha256(fromFloat32(dtype, midpoints(dtype))), goldens.encode_midpoints[dtype]);
  });

  test(`every finite ${dtype} code survives the way to float32 and back`, () => {
    const codes = allCodes(dtype);
    const values = toFloat32(dtype, codes);
    const back = fromFloat32(dtype, values);
    const size = itemSize(dtype);
    values.forEach((value, i) => {
      if (Number.isNaN(value)) return;
      assert.deepEqual(
        back.subarray(i * size, (i + 1) * size),
        codes.subarray(i * size, (i + 1) * size),
      );
    });
  });

  test(`${dtype} keeps a NaN a NaN`, () => {
    const back = toFloat32(dtype, fromFloat32(dtype, Float32Array.of(NaN, -NaN)));
    assert.ok(back.every((value) => Number.isNaN(value)));
  });
}

test("int64 becomes the nearest float32, without rounding twice", () => {
  const values = BigInt64Array.from(goldens.int64.values, BigInt);
  const result = toFloat32("int64", new Uint8Array(values.buffer));
  assert.deepEqual([...new Int32Array(result.buffer)], goldens.int64.float32_bits);
});

test("overflow follows PyTorch: infinity, or 448 where there is none", () => {
  const huge = Float32Array.of(1e30, -1e30, Infinity);
  assert.deepEqual([...toFloat32("float16", fromFloat32("float16", huge))], [
    Infinity,
    -Infinity,
    Infinity,
  ]);
  assert.deepEqual([...toFloat32("float8_e4m3fn", fromFloat32("float8_e4m3fn", huge))], [
    448,
    -448,
    448,
  ]);
});

test("float32 is a view of the same memory in both directions", () => {
  const values = Float32Array.of(1, 2, 3);
  const bytes = fromFloat32("float32", values);
  assert.equal(bytes.buffer, values.buffer);
  assert.equal(toFloat32("float32", bytes).buffer, values.buffer);
});

test("every dtype round-trips small integers, also from a shared and from an unaligned buffer", () => {
  for (const dtype of DTYPES) {
    const expected = dtype === "bool" ? [0, 1, 1] : [0, 1, 5];
    const bytes = fromFloat32(dtype, Float32Array.of(0, 1, 5));
    assert.equal(bytes.byteLength, 3 * itemSize(dtype));
    const shared = new Uint8Array(new SharedArrayBuffer(bytes.byteLength));
    shared.set(bytes);
    const unaligned = new Uint8Array(bytes.byteLength + 1).subarray(1);
    unaligned.set(bytes);
    for (const source of [bytes, shared, unaligned]) {
      assert.deepEqual([...toFloat32(dtype, source)], expected, dtype);
    }
  }
});

test("float64 rounds to float32 and integers truncate toward zero", () => {
  const doubles = Float64Array.of(0.1, 1e300, -2.5);
  assert.deepEqual([...toFloat32("float64", new Uint8Array(doubles.buffer))], [
    Math.fround(0.1),
    Infinity,
    -2.5,
  ]);
  assert.deepEqual([...toFloat32("int32", fromFloat32("int32", Float32Array.of(2.9, -2.9)))], [
    2,
    -2,
  ]);
  assert.deepEqual([...toFloat32("int64", fromFloat32("int64", Float32Array.of(-2.9, NaN)))], [
    -2,
    0,
  ]);
});

test("HostTensor.cast goes through float32", () => {
  const tensor = HostTensor.fromFloat32(Float32Array.of(1.00390625, -3));
  const narrow = tensor.cast("bfloat16");
  assert.equal(narrow.dtype, "bfloat16");
  assert.deepEqual([...narrow.toFloat32()], [1, -3]);
});
