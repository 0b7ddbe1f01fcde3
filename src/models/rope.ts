/** Rotary position embedding over several axes. */

import { HostTensor } from "../tensor/host_tensor.ts";
import { cos, pow, sin } from "../tensor/math.ts";

const THETA = 10000;

/** A token's coordinates, one per axis of `axesDims`. */
export type Position = readonly number[];

/** The tables of `headNormRope`. */
export interface RopeTables {
  /** [tokens, head dim], each value twice. */
  readonly cos: HostTensor;
  /** [tokens, head dim], each value twice. */
  readonly sin: HostTensor;
}

/**
 * cos and sin of position * theta^(-2j / D) for each axis of width D, axes side by side, each
 * value repeated for its pair. Angles in float64, results rounded to float32, as Diffusers does.
 */
export function ropeTables(
  positions: readonly Position[],
  axesDims: readonly number[],
): RopeTables {
  const width = axesDims.reduce((sum, dim) => sum + dim, 0);
  const cosines = new Float32Array(positions.length * width);
  const sines = new Float32Array(positions.length * width);
  const frequencies = axesDims.map(axisFrequencies);
  let at = 0;
  for (const position of positions) {
    frequencies.forEach((axis, index) => {
      for (const frequency of axis) {
        const angle = position[index] * frequency;
        cosines.fill(cos(angle), at, at + 2);
        sines.fill(sin(angle), at, at + 2);
        at += 2;
      }
    });
  }
  const shape = [positions.length, width];
  return {
    cos: HostTensor.fromFloat32(cosines, shape),
    sin: HostTensor.fromFloat32(sines, shape),
  };
}

function axisFrequencies(dim: number): Float64Array {
  return Float64Array.from({ length: dim / 2 }, (_, j) => 1 / pow(THETA, (2 * j) / dim));
}

/** Positions of a Flux sequence: text tokens at the origin, then image tokens (0, y, x), row by row. */
export function fluxPositions(textTokens: number, height: number, width: number): Position[] {
  const text = Array.from({ length: textTokens }, () => [0, 0, 0]);
  const image = Array.from(
    { length: height * width },
    (_, token) => [0, Math.floor(token / width), token % width],
  );
  return [...text, ...image];
}
