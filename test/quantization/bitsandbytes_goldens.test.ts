/** Bytes against bitsandbytes itself; test/goldens/README.md says how the goldens were made. */

import { test } from "node:test";
import assert from "node:assert/strict";
import { quantizeFourBit } from "../../src/quantization/bitsandbytes_4bit.ts";
import { writeFourBit } from "../../src/quantization/bitsandbytes_4bit_tensors.ts";
import { quantizeInt8, writeInt8 } from "../../src/quantization/bitsandbytes_int8.ts";
import type { NestedPath } from "../../src/quantization/bitsandbytes_nested.ts";
import {
  dynamicMapTable,
  FP4_TABLE,
  NF4_TABLE,
} from "../../src/quantization/bitsandbytes_tables.ts";
import { dequantize } from "../../src/quantization/dequantize.ts";
import type { EncodedWeight, NamedTensor } from "../../src/quantization/quantizer.ts";
import { torchMean } from "../../src/quantization/torch_mean.ts";
import type { DType } from "../../src/tensor/dtype.ts";
import { HostTensor } from "../../src/tensor/host_tensor.ts";
import {
  GOLDENS,
  noPause,
  readGolden,
  recipe,
  sha256,
  tensorOf,
  withCheckpoints,
} from "./support.ts";

interface Case {
  readonly name?: string;
  readonly scheme: "nf4" | "fp4" | "int8";
  readonly double_quant?: boolean;
  readonly blocksize?: number;
  readonly quant_state: string;
  readonly input?: string;
  readonly dtype: DType;
  readonly shape: number[];
  readonly sha256: Readonly<Record<string, string>>;
}

interface NativeGoldens {
  readonly cases: Case[];
  readonly means: { readonly size: number; readonly mean: number }[];
}

const functional = await readGolden<Case[]>("bitsandbytes/functional.json");
const native = await readGolden<NativeGoldens>("bitsandbytes_native.json");
const inputs = await readInputs();

test("NF4 and FP4 bytes equal bitsandbytes' for every input and type", async () => {
  const cases = functional.filter((c) => c.scheme !== "int8" && !c.double_quant);
  assert.ok(cases.length >= 90, `${cases.length} cases`);
  for (const golden of cases) await checkFourBit(golden);
});

test("double quantization equals bitsandbytes' PyTorch code", async () => {
  const cases = functional.filter((c) => c.double_quant);
  assert.ok(cases.length >= 90, `${cases.length} cases`);
  for (const golden of cases) await checkFourBit(golden, "portable");
});

test("double quantization equals bitsandbytes' native CPU library", async () => {
  assert.ok(native.cases.length >= 90, `${native.cases.length} cases`);
  for (const golden of native.cases) {
    await checkFourBit({ ...golden, double_quant: true }, "native");
  }
});

test("LLM.int8 bytes equal bitsandbytes' for every input and type", async () => {
  const cases = functional.filter((c) => c.scheme === "int8");
  assert.ok(cases.length >= 30, `${cases.length} cases`);
  for (const golden of cases) {
    const tensor = await quantizeInt8("x", inputOf(golden), noPause);
    checkHashes(golden, { tensor, dtype: golden.dtype }, (weight) => writeInt8("m.weight", weight));
  }
});

test("the documented short sequence gives the documented bytes", async () => {
  const values = Float32Array.from(
    { length: 130 },
    (_, i) => ((37 * i) % 101 - 50) / 50 * (i < 64 ? 1 : 0.25),
  );
  const dense = tensorOf(values, [1, 130]);
  const nf4 = { quantType: "nf4", blockSize: 64, doubleQuant: true } as const;
  const tensor = await quantizeFourBit("x", dense, nf4, noPause);
  const [packed] = writeFourBit("w", { tensor, dtype: "float32" }, "nf4", "uint8");
  assert.equal(sha256(packed.tensor.bytes).slice(0, 16), "e7c717345277ddd2");
  assert.ok(tensor.scale.kind === "coded");
  assert.deepEqual([...tensor.scale.codes], [255, 38, 32]);
  assert.equal(tensor.scale.constant, 0.4833333492279053);
});

test("the tables are bitsandbytes'", () => {
  const hash = "e732639a65f497b4ad684bb166a4467708255edd5207757de8b8f0c7e1fda89c";
  assert.equal(sha256(new Uint8Array(dynamicMapTable().buffer)), hash);
  const [nf4, fp4] = ["nf4", "fp4"].map((scheme) => functional.find((c) => c.scheme === scheme)!);
  assert.equal(sha256(new Uint8Array(NF4_TABLE.buffer)), nf4.sha256.quant_map);
  assert.equal(sha256(new Uint8Array(FP4_TABLE.buffer)), fp4.sha256.quant_map);
});

test("a mean has torch's bits at sizes around every step of its cascade", () => {
  for (const { size, mean } of native.means) {
    const values = recipe(size).map((value, i) => Math.abs(value) + (i % 13) / 1000);
    assert.equal(torchMean(values), mean, `size ${size}`);
  }
});

async function checkFourBit(golden: Case, nestedPath?: NestedPath): Promise<void> {
  const { scheme, blocksize = 64, double_quant: doubleQuant = false, dtype } = golden;
  if (scheme === "int8") throw new Error("not a 4-bit case");
  const dense = inputOf(golden);
  const options = { quantType: scheme, blockSize: blocksize, doubleQuant, nestedPath };
  const tensor = await quantizeFourBit("x", dense, options, noPause);
  checkHashes(golden, { tensor, dtype }, (weight) => {
    const tensors = writeFourBit("m.weight", weight, scheme, "uint8");
    const state = new TextDecoder().decode(tensors.at(-1)!.tensor.bytes);
    // A vector is not a matrix here; only its shape differs.
    const expected = golden.quant_state.replace(/"shape": \[(\d+)\]/, '"shape": [1, $1]');
    assert.equal(state, expected, label(golden));
    return tensors;
  });
}

function checkHashes(
  golden: Case,
  weight: EncodedWeight,
  write: (weight: EncodedWeight) => NamedTensor[],
): void {
  const tensors = new Map(write(weight).map(({ name, tensor }) => [keyOf(name), tensor]));
  for (const [key, hash] of Object.entries(golden.sha256)) {
    const actual = key === "dequantized"
      ? HostTensor.fromFloat32(dequantize(weight.tensor)).cast(dequantizedType(golden))
      : tensors.get(key);
    assert.ok(actual, `${label(golden)}: no ${key}`);
    assert.equal(sha256(actual.bytes), hash, `${label(golden)}: ${key}`);
  }
}

/** The library gives 4-bit weights back in their own type and int8 ones in float32. */
function dequantizedType(golden: Case): DType {
  return golden.scheme === "int8" ? "float32" : golden.dtype;
}

function keyOf(name: string): string {
  return name === "m.weight" ? "weight" : name.replace(/^m\.(weight\.)?/, "");
}

function label(golden: Case): string {
  return golden.name ?? `${golden.input}.${golden.scheme}`;
}

function inputOf(golden: Case): HostTensor {
  const count = golden.shape.reduce((a, b) => a * b);
  const shape = golden.shape.length === 2 ? golden.shape : [1, count];
  return inputs.get(`${golden.input}`)?.reshape(shape) ??
    tensorOf(recipe(count), shape, golden.dtype);
}

async function readInputs(): Promise<Map<string, HostTensor>> {
  const inputs = new Map<string, HostTensor>();
  await withCheckpoints([`${GOLDENS}bitsandbytes/functional.safetensors`], async (checkpoint) => {
    for (const key of checkpoint.entries.keys()) {
      const name = /^(.*)\.input$/.exec(key)?.[1];
      if (name !== undefined) inputs.set(name, await checkpoint.read(key));
    }
  });
  return inputs;
}
