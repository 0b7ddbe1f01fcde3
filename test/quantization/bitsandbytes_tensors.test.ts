/** Reading and writing the library's tensors: nothing is lost, and what is damaged is named. */

import { test } from "node:test";
import assert from "node:assert/strict";
import fc from "fast-check";
import { createQuantizer } from "../../src/quantization/auto.ts";
import { quantizeFourBit } from "../../src/quantization/bitsandbytes_4bit.ts";
import { readFourBit, writeFourBit } from "../../src/quantization/bitsandbytes_4bit_tensors.ts";
import type { BitsAndBytesOptions } from "../../src/quantization/bitsandbytes_config.ts";
import { BitsAndBytesConfig } from "../../src/quantization/bitsandbytes_config.ts";
import { quantizeInt8, readInt8, writeInt8 } from "../../src/quantization/bitsandbytes_int8.ts";
import { dequantize } from "../../src/quantization/dequantize.ts";
import type { NamedTensor } from "../../src/quantization/quantizer.ts";
import type { DType } from "../../src/tensor/dtype.ts";
import { HostTensor } from "../../src/tensor/host_tensor.ts";
import { openWeights } from "../../src/quantization/weights.ts";
import type { ErrorCode } from "../../src/errors.ts";
import {
  assertFails,
  assertSameTensors,
  memoryReader,
  noPause,
  randomValues,
  tensorOf,
} from "./support.ts";

const MODULE = "block.linear";
const NAME = `${MODULE}.weight`;

const MATRICES = fc.record({
  rows: fc.integer({ min: 1, max: 9 }),
  columns: fc.integer({ min: 1, max: 150 }),
  seed: fc.nat(),
  scale: fc.constantFrom(0, 1e-30, 0.02, 3, 1e4),
  dtype: fc.constantFrom<DType>("float32", "bfloat16", "float16"),
  quantType: fc.constantFrom("nf4" as const, "fp4" as const),
  doubleQuant: fc.boolean(),
  blockSize: fc.constantFrom(2, 32, 64, 256, 4096),
});

test("a 4-bit weight goes to the library's tensors and back without a byte changed", async () => {
  await fc.assert(fc.asyncProperty(MATRICES, async (p) => {
    const dense = tensorOf(
      randomValues(p.rows * p.columns, p.seed, p.scale),
      [p.rows, p.columns],
      p.dtype,
    );
    const tensor = await quantizeFourBit(NAME, dense, p, noPause);
    const written = writeFourBit(NAME, { tensor, dtype: p.dtype }, p.quantType, "uint8");
    const read = await readFourBit(NAME, memoryReader(written));
    assert.deepEqual(read.tensor, tensor);
    assert.equal(read.dtype, p.dtype);
    assertSameTensors(writeFourBit(NAME, read, p.quantType, "uint8"), written);
  }));
});

test("an int8 weight goes to the library's tensors and back without a byte changed", async () => {
  await fc.assert(fc.asyncProperty(MATRICES, async (p) => {
    const dense = tensorOf(randomValues(p.rows * p.columns, p.seed, p.scale), [p.rows, p.columns]);
    const tensor = await quantizeInt8(NAME, dense, noPause);
    const written = writeInt8(NAME, { tensor, dtype: "float16" });
    const read = await readInt8(NAME, memoryReader(written));
    assert.deepEqual(read.tensor, tensor);
    assertSameTensors(writeInt8(NAME, read), written);
  }));
});

test("the layout holds the weights in order and the library's bytes hold them high nibble first", async () => {
  const dense = tensorOf(Float32Array.of(-1, 1, 0, 0.5), [2, 2]); // NF4 codes 0, 15, 7, 12 or 13
  const tensor = await quantizeFourBit(NAME, dense, options({}), noPause);
  assert.deepEqual([...tensor.codes.slice(0, 1)], [0xf0]);
  const [packed] = writeFourBit(NAME, { tensor, dtype: "float32" }, "nf4", "uint8");
  assert.equal(packed.tensor.bytes[0], 0x0f);
  assert.deepEqual([...dequantize(tensor)].slice(0, 3), [-1, 1, 0]);
});

test("another storage type only views the same bytes", async () => {
  const written = await fourBitTensors({}, [8, 64]);
  const tensor = await quantizeFourBit(NAME, source([8, 64]), options({}), noPause);
  const viewed = writeFourBit(NAME, { tensor, dtype: "float32" }, "nf4", "float32");
  assert.deepEqual([...viewed[0].tensor.shape], [64, 1]);
  assert.deepEqual(viewed[0].tensor.bytes, written[0].tensor.bytes);
  const read = await readFourBit(NAME, memoryReader(viewed));
  assert.deepEqual(read.tensor, tensor);
  assertSameTensors(writeFourBit(NAME, read, "nf4", "uint8"), viewed);
});

test("a state in another spelling, a transposed weight and odd padding come back as they were", async () => {
  const written = await fourBitTensors({}, [3, 7]);
  const state = written.at(-1)!;
  const spaced = new TextDecoder().decode(state.tensor.bytes).replaceAll(", ", ",  ");
  const bytes = new TextEncoder().encode(spaced);
  const packed = written[0].tensor.bytes.slice();
  packed[packed.length - 1] &= 0xf0; // as the CUDA kernels pad
  const changed = [
    { name: NAME, tensor: new HostTensor("uint8", [1, packed.length], packed) },
    ...written.slice(1, -1),
    { name: state.name, tensor: new HostTensor("uint8", [bytes.length], bytes) },
  ];
  const read = await readFourBit(NAME, memoryReader(changed));
  assertSameTensors(writeFourBit(NAME, read, "nf4", "uint8"), changed);
  assert.deepEqual(read.tensor, (await readFourBit(NAME, memoryReader(written))).tensor);
});

test("a file's own tables are used and written back", async () => {
  const written = await fourBitTensors({ bnb4bitUseDoubleQuant: true }, [8, 64]);
  const changed = written.map(({ name, tensor }) => {
    const isMap = name.endsWith("quant_map");
    const values = tensor.dtype === "float32" ? tensor.toFloat32().map((v) => v * 0.5) : null;
    return { name, tensor: isMap ? HostTensor.fromFloat32(values!, tensor.shape) : tensor };
  });
  const read = await readFourBit(NAME, memoryReader(changed));
  assertSameTensors(writeFourBit(NAME, read, "nf4", "uint8"), changed);
  const usual = dequantize((await readFourBit(NAME, memoryReader(written))).tensor);
  assert.notDeepEqual(dequantize(read.tensor), usual);
});

// --- damage ---------------------------------------------------------------------------------------

/** A change of a good checkpoint (null deletes the tensor) and the error it must give. */
interface Damage {
  readonly what: string;
  /** What follows the weight's name (4 bits) or the module's (int8). */
  readonly suffix: string;
  readonly tensor: HostTensor | null;
  readonly code: ErrorCode;
  readonly message: RegExp;
}

const NESTED = { bnb4bitUseDoubleQuant: true };
const STATE = ".quant_state.bitsandbytes__nf4";
const GOOD_STATE = '{"quant_type": "nf4", "blocksize": 64, "dtype": "float32", "shape": [8, 64], ' +
  '"nested_blocksize": 256, "nested_dtype": "float32", "nested_offset": 0.5}';

function state(text: string): HostTensor {
  const bytes = new TextEncoder().encode(text);
  return new HostTensor("uint8", [bytes.length], bytes);
}

function stateDamage(what: string, from: string, to: string, message: RegExp): Damage {
  assert.ok(GOOD_STATE.includes(from));
  const tensor = state(GOOD_STATE.replace(from, to));
  return { what, suffix: STATE, tensor, code: "quantization_config", message };
}

function shapeDamage(suffix: string, dtype: DType, shape: number[]): Damage {
  const tensor = HostTensor.zeros(dtype, shape);
  const what = `${suffix || "weight"} of ${dtype} [${shape}]`;
  return { what, suffix, tensor, code: "tensor_shape_mismatch", message: /expected/ };
}

function missing(suffix: string): Damage {
  const what = `no ${suffix}`;
  const message = new RegExp(suffix.replaceAll(".", "\\."));
  return { what, suffix, tensor: null, code: "missing_tensor", message };
}

const FOUR_BIT_DAMAGES: Damage[] = [
  missing(".absmax"),
  missing(".quant_map"),
  missing(".nested_absmax"),
  missing(".nested_quant_map"),
  missing(STATE),
  shapeDamage("", "uint8", [255, 1]),
  shapeDamage("", "uint8", [256]),
  shapeDamage("", "int64", [32, 1]),
  shapeDamage(".absmax", "uint8", [7]),
  shapeDamage(".absmax", "float32", [8]),
  shapeDamage(".quant_map", "float32", [15]),
  shapeDamage(".quant_map", "float16", [16]),
  shapeDamage(".nested_absmax", "float32", [2]),
  shapeDamage(".nested_quant_map", "float32", [255]),
  shapeDamage(STATE, "float32", [40]),
  shapeDamage(STATE, "uint8", [5000]),
  stateDamage("broken JSON", "{", "", /UTF-8 JSON/),
  stateDamage("a list", GOOD_STATE, "[1]", /JSON object/),
  stateDamage("another type", '"nf4"', '"fp4"', /quant_type/),
  stateDamage("an unknown type", '"nf4"', '"int4"', /quant_type/),
  stateDamage("block size 0", '"blocksize": 64', '"blocksize": 0', /power of two/),
  stateDamage("block size 96", '"blocksize": 64', '"blocksize": 96', /power of two/),
  stateDamage("a text as block size", '"blocksize": 64', '"blocksize": "64"', /blocksize/),
  stateDamage("an integer type", '"float32", "shape"', '"int8", "shape"', /dtype/),
  stateDamage("a vector", "[8, 64]", "[512]", /rows, columns/),
  stateDamage("a negative shape", "[8, 64]", "[-8, -64]", /rows, columns/),
  stateDamage("an absurd shape", "[8, 64]", "[9007199254740991, 64]", /rows, columns/),
  stateDamage("an infinite offset", "0.5}", "1e999}", /nested_offset/),
  stateDamage("no offset", ', "nested_offset": 0.5', "", /nested_offset/),
  stateDamage("other nested blocks", "256", "128", /nested_blocksize/),
  {
    what: "another shape of the matrix",
    suffix: STATE,
    tensor: state(GOOD_STATE.replace("[8, 64]", "[8, 128]")),
    code: "tensor_shape_mismatch",
    message: /expected/,
  },
  {
    what: "a NaN among the nested absmax",
    suffix: ".nested_absmax",
    tensor: tensorOf(Float32Array.of(NaN), [1]),
    code: "non_finite_weight",
    message: /nested_absmax/,
  },
];

for (const damage of FOUR_BIT_DAMAGES) {
  test(`a 4-bit weight with ${damage.what} is refused by name`, async () => {
    const tensors = await fourBitTensors(NESTED, [8, 64]);
    await assertFails(() => openDamaged(tensors, damage), damage.code, damage.message);
  });
}

const INT8_DAMAGES: Damage[] = [
  { ...missing(".SCB"), message: /block\.linear\.SCB/ },
  { ...shapeDamage(".SCB", "float32", [7]) },
  { ...shapeDamage(".SCB", "float16", [8]) },
  { ...shapeDamage(".weight", "int8", [8, 8, 8]) },
  { ...shapeDamage(".weight", "uint8", [8, 64]) },
  {
    what: "another order",
    suffix: ".weight_format",
    tensor: new HostTensor("uint8", [], Uint8Array.of(2)),
    code: "unsupported",
    message: /row-major/,
  },
  {
    what: "an infinite SCB",
    suffix: ".SCB",
    tensor: tensorOf(new Float32Array(8).fill(Infinity), [8]),
    code: "non_finite_weight",
    message: /SCB/,
  },
];

for (const damage of INT8_DAMAGES) {
  test(`an int8 weight with ${damage.what} is refused by name`, async () => {
    const config = new BitsAndBytesConfig({ loadIn8bit: true });
    const quantizer = createQuantizer(config, { library: "diffusers", keepInFloat32: [] });
    const weight = await quantizer.quantize(NAME, source([8, 64]), noPause);
    const tensors = quantizer.write(NAME, weight);
    await assertFails(() => openDamaged(tensors, damage, MODULE), damage.code, damage.message);
  });
}

/** Opens the damaged checkpoint, which states its config, and reads the weight. */
async function openDamaged(tensors: NamedTensor[], damage: Damage, owner = NAME): Promise<void> {
  const changed = tensors.flatMap(({ name, tensor }) => {
    if (name !== owner + damage.suffix) return [{ name, tensor }];
    return damage.tensor ? [{ name, tensor: damage.tensor }] : [];
  });
  const load = owner === MODULE ? { load_in_8bit: true } : { load_in_4bit: true };
  const config = { quantization_config: load };
  const weights = await openWeights(memoryReader(changed), { config, linearNames: () => true });
  const info = weights.catalog.lookup(NAME);
  assert.ok(info, "the weight is there");
  const { shape, format } = info;
  await weights.source.read({ name: NAME, shape, format, arrangement: "rows", bytes: 0 });
}

function source(shape: [number, number]): HostTensor {
  return tensorOf(randomValues(shape[0] * shape[1], 6), shape);
}

function options({ bnb4bitUseDoubleQuant: doubleQuant = false }: BitsAndBytesOptions) {
  return { quantType: "nf4", blockSize: 64, doubleQuant } as const;
}

async function fourBitTensors(
  config: BitsAndBytesOptions,
  shape: [number, number],
): Promise<NamedTensor[]> {
  const tensor = await quantizeFourBit(NAME, source(shape), options(config), noPause);
  return writeFourBit(NAME, { tensor, dtype: "float32" }, "nf4", "uint8");
}
