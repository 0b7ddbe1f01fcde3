/** Sinusoidal embeddings of diffusion times. */

import { HostTensor } from "../tensor/host_tensor.ts";
import { cos, exp, log, sin } from "../tensor/math.ts";

/** Width of Flux's sinusoids (Diffusers' `Timesteps(num_channels=256)`). */
export const TIMESTEP_CHANNELS = 256;

const MAX_PERIOD = 10000;

/**
 * Rows [cos | sin] of time * frequency, as Diffusers' get_timestep_embedding with
 * flip_sin_to_cos: times [n] -> [n, channels]. Every product is rounded to float32 as PyTorch does,
 * because an angle near 1000 radians carries its rounding into the picture.
 */
export function timestepEmbedding(
  times: ArrayLike<number>,
  channels: number = TIMESTEP_CHANNELS,
): HostTensor {
  const half = channels / 2;
  const frequencies = timestepFrequencies(half);
  const values = new Float32Array(times.length * channels);
  for (let row = 0; row < times.length; row++) {
    const time = Math.fround(times[row]);
    for (let k = 0; k < half; k++) {
      const angle = Math.fround(time * frequencies[k]);
      values[row * channels + k] = cos(angle);
      values[row * channels + half + k] = sin(angle);
    }
  }
  return HostTensor.fromFloat32(values, [times.length, channels]);
}

function timestepFrequencies(half: number): Float32Array {
  const slope = Math.fround(-log(MAX_PERIOD));
  return Float32Array.from(
    { length: half },
    (_, k) => exp(Math.fround(Math.fround(slope * k) / half)),
  );
}

/** What the model is given for a scheduler timestep t: (t / 1000) * 1000 in float32. */
export function modelTime(timestep: number): number {
  return Math.fround(Math.fround(Math.fround(timestep) / 1000) * 1000);
}
