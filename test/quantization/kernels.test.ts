/** The WebAssembly kernels that quantize against the same in TypeScript, and on workers. */

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import process from "node:process";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import {
  type CodeRule,
  type EncodeRule,
  float8Codes,
  type FloatType,
  floatxCodes,
  integerCodes,
} from "../../src/quantization/encode_rule.ts";
import { groupRanges } from "../../src/quantization/groups.ts";
import { FLOATX_FORMATS } from "../../src/quantization/floatx.ts";
import { quantizeFormats } from "../../src/quantization/formats.ts";
import { GGUF_TYPES } from "../../src/quantization/gguf_types.ts";
import { isGgufQuantType } from "../../src/quantization/gguf_quantizers.ts";
import { fourBitGrid } from "../../src/quantization/bitsandbytes_tables.ts";
import {
  type KernelJob,
  PIECE,
  type QuantizeKernels,
  resultBytes,
  valueBytes,
} from "../../src/quantization/kernel_job.ts";
import { localKernels } from "../../src/quantization/kernel_runs.ts";
import { createPause, type Pause } from "../../src/quantization/pause.ts";
import { REFERENCE_KERNELS } from "../../src/quantization/reference_kernels.ts";
import { fromFloat32, toFloat32 } from "../../src/tensor/convert.ts";
import { HostTensor } from "../../src/tensor/host_tensor.ts";
import { ScratchBytes } from "../../src/tensor/scratch_bytes.ts";
import { SharedScratch } from "../../src/tensor/shared_scratch.ts";
import { SMALL_FLOATS } from "../../src/tensor/small_float.ts";
import { quantizerOf } from "./method_support.ts";
import { HEAP_BASE, resultInPlace } from "./placed_kernels.ts";
import { assertFails, noPause, randomValues, sha256 } from "./support.ts";

const kernels = await localKernels();
const DTYPES: readonly FloatType[] = ["float32", "bfloat16", "float16"];

/** Kinds of weights, by their values. */
const INPUTS: Readonly<Record<string, (count: number) => Float32Array>> = {
  uniform: (count) => randomValues(count, 1),
  weights: (count) => randomValues(count, 2, 0.02),
  "heavy tails": (count) => randomValues(count, 3).map((value) => value ** 9 * 40),
  "some outliers": (count) => randomValues(count, 4).map((value, i) => i % 97 === 0 ? 50 : value),
  positive: (count) => randomValues(count, 5).map(Math.abs),
  "negative ones": (count) => randomValues(count, 6).map((value) => -1 - Math.abs(value)),
  constant: (count) => new Float32Array(count).fill(0.375),
  zeros: (count) => new Float32Array(count),
  "zeros of both signs": (count) => randomValues(count, 7).map((value) => value < 0 ? -0 : 0),
  "mostly zeros": (count) => randomValues(count, 8).map((value) => value < 0.9 ? 0 : value),
  "few distinct": (count) => randomValues(count, 9).map((value) => Math.round(value * 4) / 4),
  tiny: (count) => randomValues(count, 10, 2 ** -20),
  subnormal: (count) => randomValues(count, 11, 2 ** -128),
  "scales of all sizes": (count) =>
    randomValues(count, 12).map((value, i) => value * 2 ** ((i >> 5) % 40 - 30)),
  large: (count) => randomValues(count, 13, 6e4),
};

/** What is made of values that begin at an element of a matrix and end with it. */
function resultOf(run: QuantizeKernels["run"], job: KernelJob, input: Uint8Array, start: number) {
  const size = valueBytes(job.values);
  const result = new Uint8Array(resultBytes(job, start + input.length / size));
  for (let at = 0; at < input.length / size; at += PIECE) {
    const piece = input.subarray(at * size, (at + PIECE) * size);
    assert.equal(run(job, start + at, piece, result), true);
  }
  return result;
}

function assertSameResults(job: KernelJob, values: Float32Array, label: string, start = 0): void {
  const input = fromFloat32(job.values.dtype, values).slice();
  const found = resultOf((...piece) => kernels.run(...piece), job, input, start);
  const expected = resultOf(REFERENCE_KERNELS.run, job, input, start);
  for (const result of [found, resultInPlace(job, input, start)]) {
    const at = result.findIndex((byte, index) => byte !== expected[index]);
    assert.equal(at, -1, `${label}: byte ${at} is ${result[at]} for ${expected[at]}`);
  }
}

function eachInput(count: number, visit: (name: string, values: Float32Array) => void): void {
  const names = Object.keys(INPUTS);
  for (const name of count > 4500 ? names.slice(0, 3) : names) visit(name, INPUTS[name](count));
}

/** Runs of many lengths, cut by groups of many sizes. */
const RUNS = [
  { start: 0, count: 5000, groupSize: 5000 },
  { start: 56, count: 2103, groupSize: 64 },
  { start: 8, count: 349, groupSize: 16 },
  { start: 304, count: 999, groupSize: 333 },
  { start: 8, count: 3, groupSize: 1 },
] as const;

test("ranges of groups are those of the reference, signs of zeros included", () => {
  for (const dtype of DTYPES) {
    for (const toFloat16 of [false, true]) {
      for (const { start, count, groupSize } of RUNS) {
        const job: KernelJob = { kind: "ranges", values: { dtype, toFloat16 }, groupSize };
        eachInput(count, (name, values) => {
          assertSameResults(job, values, `${name} ${dtype} ${count}`, start);
        });
      }
    }
  }
});

test("groups that several pieces share have the range of all of them, and the first zero's sign", async () => {
  const count = 3 * PIECE + 1000;
  for (const groupSize of [count, PIECE + 1, 5001]) {
    for (const name of ["uniform", "zeros of both signs", "negative ones"]) {
      const values = INPUTS[name](count);
      if (name === "negative ones") values[count - 1] = 0, values[groupSize - 1] = -0;
      const tensor = HostTensor.fromFloat32(values);
      const { min, max } = await groupRanges("w", tensor, groupSize, noPause);
      assert.equal(min.length, Math.ceil(count / groupSize));
      min.forEach((low, group) => {
        const part = values.subarray(group * groupSize, (group + 1) * groupSize);
        const [least, most] = part.reduce(([least, most], value) => {
          return [value < least ? value : least, value > most ? value : most];
        }, [Infinity, -Infinity]);
        assert.ok(Object.is(low, least) && Object.is(max[group], most), `${name} ${groupSize}`);
      });
    }
  }
});

test("values over their group's largest magnitude have the codes of the reference", () => {
  for (const dtype of DTYPES) {
    for (const quantType of ["nf4", "fp4"] as const) {
      for (const [groupSize, start] of [[64, 0], [64, 192], [4096, 4096]] as const) {
        const code = { kind: "levels", ...fourBitGrid(quantType) } as const;
        const groups = Math.ceil((start + 5000) / groupSize);
        const size = { groupSize, groups, least: 1e-38, bits: 4 } as const;
        const job: KernelJob = { kind: "normalize", values: { dtype }, ...size, code };
        for (const name of Object.keys(INPUTS)) {
          assertSameResults(job, INPUTS[name](5000), `${name} ${dtype} ${quantType}`, start);
        }
      }
    }
  }
});

test("values at the bounds between levels, and next to them, have the codes of the reference", () => {
  for (const quantType of ["nf4", "fp4"] as const) {
    const { bounds, order } = fourBitGrid(quantType);
    const values = Float32Array.from(
      [...bounds].flatMap((bound) => {
        const bits = new Int32Array(Float32Array.of(bound).buffer)[0]!;
        const near = Int32Array.from([-2, -1, 0, 1, 2], (step) => bits + step);
        return [...new Float32Array(near.buffer)];
      }).filter(Number.isFinite).concat([0, -0, 1, -1, 1.5, -1.5, 3e38, -3e38, 1e-45]),
    );
    const factor = Float32Array.of(1);
    const code = { kind: "levels", bounds, order } as const;
    const rule = { rounding: "float32", operation: "multiply", factor, code } as const;
    const groupSize = values.length;
    const job: KernelJob = {
      kind: "encode",
      values: { dtype: "float32" },
      groupSize,
      rule,
      bits: 4,
    };
    assertSameResults(job, values, quantType);
  }
});

const RULES: Readonly<Record<string, CodeRule>> = {
  int8: integerCodes(-128, 127),
  int4: integerCodes(-8, 7, { nanIsZero: false }),
  uint2: integerCodes(0, 3),
  "int8 of half the range": integerCodes(-64, 63, { origin: -128 }),
  e4m3: float8Codes(SMALL_FLOATS.float8_e4m3fn, 448),
  "e5m2 without limit": float8Codes(SMALL_FLOATS.float8_e5m2),
  fp3: floatxCodes(FLOATX_FORMATS.fp3),
  fp6: floatxCodes(FLOATX_FORMATS.fp6),
  "e2m1 with one zero": floatxCodes(FLOATX_FORMATS.fp4, false),
  nf4: { kind: "levels", ...fourBitGrid("nf4") },
  fp4: { kind: "levels", ...fourBitGrid("fp4") },
};
const BITS: Readonly<Record<string, number>> = {
  int8: 8,
  "int8 of half the range": 8,
  uint2: 2,
  fp3: 3,
  fp6: 6,
};

test("codes by any rule are those of the reference", () => {
  for (const [name, code] of Object.entries(RULES)) {
    const bits = BITS[name] ?? (name.startsWith("e") && name !== "e2m1 with one zero" ? 8 : 4);
    for (const dtype of DTYPES) {
      for (const { start, count, groupSize } of RUNS) {
        const groups = Math.ceil((start + count) / groupSize);
        for (const [index, rule] of rulesOf(code, dtype, groups).entries()) {
          const job: KernelJob = { kind: "encode", values: { dtype }, rule, bits, groupSize };
          eachInput(count, (input, values) => {
            assertSameResults(job, values, `${name} ${index} ${dtype} ${count} ${input}`, start);
          });
        }
      }
    }
  }
});

/** What changes no value. */
const RULE_OF_ONE = {
  rounding: "float32",
  operation: "multiply",
  factor: Float32Array.of(1),
} as const;

test("every bfloat16 number becomes the 8-bit float of the reference", () => {
  const input = new Uint8Array(Uint16Array.from({ length: 65536 }, (_, bits) => bits).buffer);
  const finite = (from: number) => input.subarray(2 * from, 2 * (from + 0x7f80));
  for (const dtype of ["float8_e4m3fn", "float8_e5m2"] as const) {
    const rule: EncodeRule = { ...RULE_OF_ONE, code: float8Codes(SMALL_FLOATS[dtype]) };
    for (const from of [0, 0x8000]) {
      const values = toFloat32("bfloat16", finite(from));
      const groupSize = values.length;
      const job: KernelJob = {
        kind: "encode",
        values: { dtype: "bfloat16" },
        rule,
        bits: 8,
        groupSize,
      };
      assertSameResults(job, values, `${dtype} from ${from}`);
      assertSameResults(job, values.subarray(16300, 16337), `${dtype}, few`);
    }
  }
});

/** Rules with factors of all sizes, zero and infinite ones too, with and without shifts and zeros. */
function rulesOf(code: CodeRule, rounding: FloatType, groups: number): EncodeRule[] {
  const sizes = randomValues(groups, 20).map((value, group) => {
    return group % 5 === 4 ? 0 : Math.abs(value) * 2 ** (group % 9 - 6);
  });
  const inverse = sizes.map((size) => 1 / size);
  const shift = randomValues(groups, 21, 0.5);
  const zero = randomValues(groups, 22, 3).map(Math.round);
  const shifted = code.kind === "integer"
    ? { ...code, shift, zero, bias: randomValues(groups, 23) }
    : code;
  return [
    { rounding, operation: "divide", factor: sizes, code },
    { rounding: "float32", operation: "multiply", factor: inverse, code },
    { rounding, operation: "multiply", factor: inverse, code: shifted },
  ];
}

test("blocks of every GGUF type are those of the reference", () => {
  for (const { name: type } of GGUF_TYPES) {
    if (!isGgufQuantType(type)) continue;
    const count = 256 * 9; // an odd number of large blocks
    for (const dtype of DTYPES) {
      const job: KernelJob = { kind: "blocks", values: { dtype }, type };
      eachInput(
        count,
        (name, values) => assertSameResults(job, values, `${type} ${name} ${dtype}`),
      );
    }
  }
});

test("many random groups give the searches' scales of the reference", () => {
  const count = 256 * 400;
  const normal = randomValues(3 * count, 30);
  const values = Float32Array.from({ length: count }, (_, i) => {
    return normal[3 * i] + normal[3 * i + 1] + normal[3 * i + 2];
  });
  for (
    const type of ["Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_NL", "MXFP4", "NVFP4"] as const
  ) {
    assertSameResults({ kind: "blocks", values: { dtype: "float32" }, type }, values, type);
  }
});

test("turns of HQQ are those of the reference, whatever errors are kept", () => {
  for (const [index, groupSize] of [32, 64, 128, 256].entries()) {
    const [start, count] = [512, 3072];
    const groups = (start + count) / groupSize;
    const inverse = randomValues(groups, 24).map((value, group) => {
      return Math.abs(value) * 2 ** (group % 13 - 3);
    });
    const zero = randomValues(groups, 25, 15);
    const threshold = Math.fround(0.1 * 1.01 ** -index);
    for (const dtype of DTYPES) {
      const job: KernelJob = {
        kind: "hqq",
        values: { dtype },
        groupSize,
        inverse,
        zero,
        threshold,
      };
      eachInput(count, (name, values) => {
        assertSameResults(job, values, `${name} ${dtype} ${groupSize}`, start);
      });
    }
  }
});

test("kernels tell of values that are not finite, and of too large ones in blocks", () => {
  const tells = (job: KernelJob, values: Float32Array, label: string) => {
    const input = new Uint8Array(values.buffer);
    const result = () => new Uint8Array(resultBytes(job, values.length));
    assert.equal(kernels.run(job, 0, input, result()), false, label);
    assert.equal(REFERENCE_KERNELS.run(job, 0, input, result()), false, label);
  };
  const dtype = "float32";
  for (const bad of [NaN, Infinity, -Infinity]) {
    for (const at of [0, 1023, 1030]) {
      const values = randomValues(1031, 40);
      values[at] = bad;
      tells({ kind: "ranges", values: { dtype }, groupSize: 1031 }, values, `${bad} ${at}`);
    }
  }
  for (const { name: type } of GGUF_TYPES) {
    if (!isGgufQuantType(type)) continue;
    const values = new Float32Array(256);
    values[200] = 2 ** 31;
    tells({ kind: "blocks", values: { dtype }, type }, values, type);
    values[200] = type.endsWith("FP4") ? NaN : 2 ** 29; // a scale that float16 cannot hold
    tells({ kind: "blocks", values: { dtype }, type }, values, type);
  }
});

/** Large enough for workers. */
const LARGE = [1024, 2304] as const;

function largeMatrix(shared: boolean): HostTensor {
  const matrix = HostTensor.zeros("bfloat16", LARGE, { shared });
  const values = randomValues(LARGE[0] * LARGE[1], 50).map((value) => value ** 3);
  matrix.bytes.set(fromFloat32("bfloat16", values));
  return matrix;
}

/** One format of each kind of codes, and of each way to scale groups. */
const SPREAD = [
  "bitsandbytes:nf4-dq",
  "bitsandbytes:int8",
  "torchao:int4wo",
  "torchao:int4wo_hqq",
  "torchao:uint3wo",
  "torchao:float8wo_e4m3",
  "quanto:int2",
  "layerwise:float8_e5m2",
  "modelopt:fp8",
  "modelopt:nvfp4",
  "gguf:Q4_0",
];

test("codes that several pieces share bytes with are written by their own piece alone", () => {
  const values = randomValues(2 * PIECE + 1001, 51);
  const factor = new Float32Array(values.length).fill(1);
  for (const bits of [1, 2, 3, 5, 7, 8]) {
    const most = Math.min(3, 2 ** bits - 1);
    for (const groupSize of [values.length, 1000, 77]) {
      const job: KernelJob = {
        kind: "encode",
        values: { dtype: "bfloat16" },
        rule: { ...RULE_OF_ONE, factor, code: integerCodes(0, most) },
        bits,
        groupSize,
      };
      assertSameResults(job, values, `${bits} bits, groups of ${groupSize}`);
    }
  }
});

test("pieces of shared scratch memory begin behind what the module keeps there", () => {
  assert.ok(new SharedScratch().take(1).byteOffset >= HEAP_BASE);
});

test("workers give the bytes of the calling thread, wherever values and results lie", async () => {
  const [dense, shared] = [largeMatrix(false), largeMatrix(true)];
  const scratch = new ScratchBytes();
  const placed = () => {
    scratch.reset();
    const bytes = scratch.shared.take(dense.bytes.length);
    bytes.set(dense.bytes);
    return new HostTensor(dense.dtype, dense.shape, bytes);
  };
  for (const [index, name] of SPREAD.entries()) {
    const format = quantizeFormats().find(({ fullName }) => fullName === name)!;
    const quantizer = quantizerOf(format.config());
    const hashes = async (matrix: HostTensor, pause: Pause) => {
      const { tensor } = await quantizer.quantize("w", matrix, pause);
      const parts = [tensor.scale, tensor.offset].flatMap((data) => {
        if (data === null) return [];
        return data.kind === "float" ? [data.values.bytes] : [data.codes, data.supers.bytes];
      });
      return [tensor.codes, ...parts].map(sha256);
    };
    const expected = await hashes(dense, noPause);
    const found = await hashes(
      index % 2 === 0 ? dense : shared,
      createPause({ threads: 2 + index % 2 }),
    );
    assert.deepEqual(found, expected, name);
    const threads = 3 - index % 2;
    const inPlace = await hashes(placed(), createPause({ threads, scratch }));
    assert.deepEqual(inPlace, expected, `${name} in place`);
    scratch.reset();
    const slabs = await hashes(dense, createPause({ threads, scratch }));
    assert.deepEqual(slabs, expected, `${name} brought into place`);
  }
});

test("every format refuses NaN and infinity, whoever else looked for them", async () => {
  for (const { config } of quantizeFormats()) {
    const quantizer = quantizerOf(config());
    for (const value of [NaN, Infinity, -Infinity]) {
      const values = randomValues(512 * 256, 33);
      values[70_001] = value;
      const dense = new HostTensor("float32", [512, 256], new Uint8Array(values.buffer)).cast(
        "bfloat16",
      );
      if (quantizer.describe(dense.shape, dense.dtype, "layer.weight") === null) continue;
      const action = () => quantizer.quantize("layer.weight", dense, noPause);
      await assertFails(action, "non_finite_weight", /"layer\.weight"/);
    }
  }
});

test("workers refuse what is not finite by name and element, and work again after it", async () => {
  const quantizer = quantizerOf({ quant_method: "gguf", quant_type: "Q8_0" });
  const dense = largeMatrix(true);
  const element = dense.bytes.subarray(2 * 2_000_001, 2 * 2_000_002);
  const good = element.slice();
  element.set([0xc0, 0x7f]); // NaN
  const action = () => quantizer.quantize("w", dense, createPause({ threads: 2 }));
  await assertFails(action, "non_finite_weight", /"w".*NaN at element 2000001/s);
  element.set(good);
  await action();
});

test("a process that quantized on workers ends by itself", { timeout: 60_000 }, () => {
  const script = fileURLToPath(new URL("./quantize_once.ts", import.meta.url));
  const words = "Deno" in globalThis ? ["run", "-A", "--no-check", script] : [script];
  const output = execFileSync(process.execPath, words, { encoding: "utf8", timeout: 50_000 });
  assert.equal(output.trim(), "2359296 codes");
});
