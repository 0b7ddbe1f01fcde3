/** What the checks of a pipeline call share. */

import { invalidOption } from "../errors.ts";
import { isFloat } from "../tensor/dtype.ts";
import { HostTensor } from "../tensor/host_tensor.ts";

/** What the checks must know of the models. */
export interface FluxTraits {
  /** Features of a latent token. */
  readonly inChannels: number;
  readonly jointAttentionDim: number;
  readonly pooledProjectionDim: number;
  /** Pixels per latent pixel, each way. */
  readonly scaleFactor: number;
  /** Pixels of a side when none is given: what the autoencoder was made for (1024 for FLUX.1). */
  readonly defaultSide: number;
  readonly hasTextEncoder: boolean;
  readonly hasTextEncoder2: boolean;
}

/** Bounds of a call. */
export const CALL_LIMITS = {
  /** Pixels of a side. */
  side: 16384,
  /** Pixels of a picture. */
  area: 4096 * 4096,
  steps: 1000,
  /** Pictures of one call. */
  images: 64,
  /** UTF-16 units of a prompt; both tokenizers read far less. */
  promptLength: 100_000,
  /** T5 tokens, as in Diffusers. */
  sequenceLength: 512,
} as const;

/** An integer option from 1 to `maximum`; absent means the fallback. */
export function integerOption(
  field: string,
  given: number | undefined,
  fallback: number,
  maximum: number,
): number {
  const value = given ?? fallback;
  if (Number.isInteger(value) && value >= 1 && value <= maximum) return value;
  throw invalidOption(field, value, `an integer from 1 to ${maximum}`);
}

/** Refuses what is no tensor of floats. */
export function requireTensor(field: string, value: HostTensor): void {
  if (value instanceof HostTensor && isFloat(value.dtype)) return;
  const found = value instanceof HostTensor ? value.dtype : typeof value;
  throw invalidOption(field, found, "a HostTensor of floats");
}
