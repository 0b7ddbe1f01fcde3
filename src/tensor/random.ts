/** Random tensors equal to PyTorch's CPU generator bit for bit (x86-64 Linux wheels), so that seeds mean the same. */

import { HalftoneError } from "../errors.ts";
import { logFloat32, sinCosFloat32 } from "./float32_math.ts";
import { HostTensor } from "./host_tensor.ts";
import { cos, log, sin } from "./math.ts";
import { MersenneTwister } from "./mersenne_twister.ts";
import { elementCount, type Shape } from "./shape.ts";

const f32 = Math.fround;
const TWO_PI = 2 * Math.PI;
const TWO_PI_FLOAT32 = f32(TWO_PI);
/** The vector kernel turns 16 uniforms at a time into 16 normals. */
const BLOCK = 16;

/** The element types normal noise can be drawn in. */
export type NoiseDType = "float32" | "bfloat16" | "float16";

/** `torch.Generator("cpu").manual_seed(seed)`. */
export class TorchGenerator {
  /** The seed, as given. */
  readonly initialSeed: bigint;
  readonly #engine: MersenneTwister;
  /** The second value of the last scalar Box-Muller pair; small draws only. */
  #cachedNormal: number | undefined;

  /**
   * Starts the stream of a seed.
   *
   * @param seed an integer from -2^63 to 2^64 - 1; the engine uses its low 32 bits only, as PyTorch's does
   * @throws HalftoneError `invalid_argument` for anything else
   */
  constructor(seed: number | bigint) {
    this.initialSeed = checkedSeed(seed);
    this.#engine = new MersenneTwister(Number(BigInt.asUintN(32, this.initialSeed)));
  }

  /** `torch.randn(shape, generator=..., dtype=...)`: normal values with mean 0 and variance 1. */
  randn(shape: Shape, dtype: NoiseDType = "float32"): HostTensor {
    const values = this.randnValues(elementCount(shape), dtype);
    return HostTensor.fromFloat32(values, shape).cast(dtype);
  }

  /** The values of a flat {@link randn} before they are rounded to `dtype`. */
  randnValues(count: number, dtype: NoiseDType = "float32"): Float32Array {
    const values = new Float32Array(count);
    if (count < BLOCK) return values.map(() => this.#scalarNormal());
    const whole = count - count % BLOCK;
    // float32 draws a uniform for every slot first; 16-bit types draw block by block, so none for the tail.
    this.#fillUniform(dtype === "float32" ? values : values.subarray(0, whole));
    for (let start = 0; start < whole; start += BLOCK) boxMullerBlock(values, start);
    if (whole < count) {
      this.#fillUniform(values.subarray(count - BLOCK)); // the last block overlaps the one before
      boxMullerBlock(values, count - BLOCK);
    }
    return values;
  }

  /** `torch.rand(shape, generator=...)`: float32 values in [0, 1). */
  rand(shape: Shape): HostTensor {
    const values = new Float32Array(elementCount(shape));
    this.#fillUniform(values);
    return HostTensor.fromFloat32(values, shape);
  }

  #fillUniform(values: Float32Array): void {
    for (let i = 0; i < values.length; i++) {
      values[i] = (this.#engine.nextUint32() & 0xffffff) * 2 ** -24;
    }
  }

  /** A float64 Box-Muller value: the way of tensors below 16 elements. */
  #scalarNormal(): number {
    const cached = this.#cachedNormal;
    this.#cachedNormal = undefined;
    if (cached !== undefined) return cached;
    const angle = TWO_PI * this.#uniformFloat64();
    const radius = Math.sqrt(-2 * log(1 - this.#uniformFloat64())); // 1 - u is exact
    this.#cachedNormal = radius * sin(angle);
    return radius * cos(angle);
  }

  #uniformFloat64(): number {
    const high = this.#engine.nextUint32() & 0x1fffff;
    return (high * 2 ** 32 + this.#engine.nextUint32()) * 2 ** -53;
  }
}

const sinCos = new Float64Array(2);

/** Turns the 16 uniforms at `start` into normals: the first eight give radii, the last eight angles. */
function boxMullerBlock(values: Float32Array, start: number): void {
  for (let j = start; j < start + BLOCK / 2; j++) {
    const radius = f32(Math.sqrt(f32(-2 * logFloat32(f32(1 - values[j])))));
    sinCosFloat32(f32(TWO_PI_FLOAT32 * values[j + BLOCK / 2]), sinCos);
    values[j] = radius * sinCos[1] + 0; // + mean, which makes -0 positive
    values[j + BLOCK / 2] = radius * sinCos[0] + 0;
  }
}

function checkedSeed(seed: number | bigint): bigint {
  const whole = typeof seed === "bigint" || Number.isSafeInteger(seed);
  const value = whole ? BigInt(seed) : 0n;
  if (whole && value >= -(2n ** 63n) && value < 2n ** 64n) return value;
  throw new HalftoneError("invalid_argument", "Cannot seed the random generator", {
    field: "seed",
    found: String(seed),
    expected: "an integer from -2^63 to 2^64 - 1 (a bigint beyond 2^53)",
  });
}
