/** Reduction of huge angles modulo pi/2 (Payne and Hanek 1983), in exact integers. */

/** x = quadrant * pi/2 + high + low, |high| at most about pi/4. */
export interface ReducedAngle {
  /** The quadrant; only its low two bits matter. */
  quadrant: number;
  /** The remainder, leading part. */
  high: number;
  /** The remainder, trailing part. */
  low: number;
}

// floor(2/pi * 2^1216) and floor(pi/2 * 2^192)
const TWO_OVER_PI_BITS = 1216n;
const TWO_OVER_PI = BigInt(
  "0x" +
    "a2f9836e4e441529fc2757d1f534ddc0db6295993c439041fe5163abdebbc561b7246e3a424d" +
    "d2e006492eea09d1921cfe1deb1cb129a73ee88235f52ebb4484e99c7026b45f7e413991d639" +
    "835339f49c845f8bbdf9283b1ff897ffde05980fef2f118b5a0a6d1f6d367ecf27cb09b74f46" +
    "3f669e5fea2d7527bac7ebe5f17b3d0739f78a5292ea6bfb5fb11f8d5d0856033046fc7b6bab",
);
const PI_OVER_TWO_BITS = 192n;
const PI_OVER_TWO = 0x1921fb54442d18469898cc51701b839a252049c1114cf98e8n;
const KEPT_BITS = 192n;

const scratch = new DataView(new ArrayBuffer(8));

/** Reduces any |x| of at least 1; NaN and infinities give NaN. */
export function reduceHugeAngle(x: number): ReducedAngle {
  if (!Number.isFinite(x)) return { quadrant: 0, high: NaN, low: NaN };
  scratch.setFloat64(0, x);
  const bits = scratch.getBigUint64(0);
  const mantissa = (bits & 0xfffffffffffffn) | 0x10000000000000n;
  const exponent = ((bits >> 52n) & 0x7ffn) - 1075n; // |x| = mantissa * 2^exponent
  // |x| * 2/pi in units of 2^-KEPT_BITS
  const turns = (mantissa * TWO_OVER_PI) >> (TWO_OVER_PI_BITS - exponent - KEPT_BITS);
  const nearest = (turns + (1n << (KEPT_BITS - 1n))) >> KEPT_BITS;
  const remainder = (turns - (nearest << KEPT_BITS)) * PI_OVER_TWO;
  const high = Number(remainder);
  const low = Number(remainder - BigInt(high));
  const unit = 2 ** -Number(KEPT_BITS + PI_OVER_TWO_BITS);
  const quadrant = Number(nearest & 3n);
  return x < 0
    ? { quadrant: -quadrant, high: -high * unit, low: -low * unit }
    : { quadrant, high: high * unit, low: low * unit };
}
