import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { parseSafetensors, parseSafetensorsHeader } from "../../src/io/safetensors.ts";
import { layoutSafetensors, serializeSafetensors } from "../../src/io/safetensors_writer.ts";
import { type DType, itemSize } from "../../src/tensor/dtype.ts";
import { HostTensor } from "../../src/tensor/host_tensor.ts";
import { elementCount } from "../../src/tensor/shape.ts";

/** Written by test/goldens/make_safetensors_goldens.py with the Python library. */
interface Golden {
  metadata: Record<string, string>;
  sha256: string;
  tensors: [name: string, dtype: DType, shape: number[]][];
}

const folder = new URL("../goldens/safetensors/", import.meta.url);
const contents = JSON.parse(readFileSync(new URL("contents.json", folder), "utf8")) as Record<
  string,
  Golden
>;

function goldenFile(name: string): Uint8Array {
  return new Uint8Array(readFileSync(new URL(`${name}.safetensors`, folder)));
}

function filled(dtype: DType, shape: number[]): HostTensor {
  if (dtype === "bool") return new HostTensor(dtype, shape, Uint8Array.of(1, 0, 1));
  const bytes = elementCount(shape) * itemSize(dtype);
  return new HostTensor(dtype, shape, Uint8Array.from({ length: bytes }, (_, i) => i % 251));
}

function goldenTensors(name: string): Map<string, HostTensor> {
  return new Map(contents[name].tensors.map(([key, dtype, shape]) => [key, filled(dtype, shape)]));
}

for (const name of Object.keys(contents)) {
  test(`reads what the Python library wrote: ${name}`, () => {
    const file = goldenFile(name);
    const { metadata } = parseSafetensorsHeader(file, file.byteLength);
    assert.deepEqual({ ...metadata }, contents[name].metadata);
    const found = parseSafetensors(file);
    const expected = goldenTensors(name);
    assert.deepEqual([...found.keys()].sort(), [...expected.keys()].sort());
    for (const [key, tensor] of expected) {
      assert.equal(found.get(key)?.dtype, tensor.dtype, key);
      assert.deepEqual([...found.get(key)!.shape], [...tensor.shape], key);
      assert.deepEqual([...found.get(key)!.bytes], [...tensor.bytes], key);
    }
  });

  test(`writes the very bytes that the Python library writes: ${name}`, () => {
    const shuffled = new Map([...goldenTensors(name)].reverse());
    const file = serializeSafetensors(shuffled, contents[name].metadata);
    assert.equal(createHash("sha256").update(file).digest("hex"), contents[name].sha256);
  });
}

test("the tensors come in the order of their data, whatever the header's order", () => {
  const header = {
    second: { dtype: "U8", shape: [2], data_offsets: [3, 5] },
    first: { dtype: "U8", shape: [3], data_offsets: [0, 3] },
  };
  const text = new TextEncoder().encode(JSON.stringify(header));
  const file = new Uint8Array(8 + text.byteLength + 5);
  new DataView(file.buffer).setUint32(0, text.byteLength, true);
  file.set(text, 8);
  file.set([1, 2, 3, 4, 5], 8 + text.byteLength);
  const tensors = parseSafetensors(file);
  assert.deepEqual([...tensors.keys()], ["first", "second"]);
  assert.deepEqual([...tensors.get("second")!.bytes], [4, 5]);
});

test("a header without padding and with odd offsets is read; values are realigned", () => {
  const tensor = { dtype: "F32", shape: [1], data_offsets: [1, 5] };
  const flag = { dtype: "U8", shape: [1], data_offsets: [0, 1] };
  const text = new TextEncoder().encode(JSON.stringify({ flag, tensor }));
  const file = new Uint8Array(8 + text.byteLength + 5);
  new DataView(file.buffer).setUint32(0, text.byteLength, true);
  file.set(text, 8);
  new DataView(file.buffer).setFloat32(8 + text.byteLength + 1, 1.5, true);
  assert.deepEqual([...parseSafetensors(file).get("tensor")!.toFloat32()], [1.5]);
});

test("a file without tensors is read", () => {
  assert.equal(parseSafetensors(serializeSafetensors({}, {})).size, 0);
});

test("names that mean something to JavaScript objects are names like others", () => {
  const names = ["__proto__", "constructor", "toString", "0", "-1", "length"];
  const tensors = new Map(names.map((name, i) => [name, filled("uint8", [i + 1])]));
  const found = parseSafetensors(serializeSafetensors(tensors));
  assert.deepEqual([...found.keys()].sort(), [...names].sort());
  assert.equal(found.get("__proto__")!.size, 1);
  assert.equal(({} as Record<string, unknown>).size, undefined);
});

test("the header is padded to a multiple of eight and the file size is known beforehand", () => {
  for (let length = 1; length < 20; length++) {
    const layout = layoutSafetensors([{ name: "x".repeat(length), dtype: "int8", shape: [3] }]);
    assert.equal(layout.header.byteLength % 8, 0);
    assert.equal(layout.fileSize, layout.header.byteLength + 3);
  }
});
