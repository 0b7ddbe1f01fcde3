/** What one request may ask for. */

/** Bounds of a request and of the queue. */
export interface ServerLimits {
  /** Bytes of a request's body. */
  readonly bodyBytes: number;
  /** UTF-8 bytes of a prompt, and of a negative prompt. */
  readonly promptBytes: number;
  /** Smallest and largest side, in pixels. */
  readonly minSide: number;
  readonly maxSide: number;
  /** Sides are multiples of this. */
  readonly sideMultiple: number;
  /** Width times height. */
  readonly maxPixels: number;
  readonly maxSteps: number;
  readonly maxImages: number;
  /** Largest guidance_scale and true_cfg_scale. */
  readonly maxScale: number;
  /** Jobs that may wait behind the running one. */
  readonly queueLength: number;
}

/** The limits unless the caller sets others. */
export const DEFAULT_LIMITS: ServerLimits = {
  bodyBytes: 64 * 1024,
  promptBytes: 8 * 1024,
  minSide: 64,
  maxSide: 2048,
  sideMultiple: 16,
  maxPixels: 2_100_000,
  maxSteps: 50,
  maxImages: 4,
  maxScale: 100,
  queueLength: 16,
};
