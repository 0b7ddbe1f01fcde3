/** What the server needs of a pipeline: small enough that a test can write a false one. */

/** The size, steps and guidance a model draws with unless a request says otherwise. */
export interface PictureDefaults {
  readonly width: number;
  readonly height: number;
  readonly numInferenceSteps: number;
  readonly guidanceScale: number;
}

/** One request, complete: every default is filled in. */
export interface PictureJob extends PictureDefaults {
  readonly prompt: string;
  readonly negativePrompt?: string;
  readonly trueCfgScale: number;
  readonly seed: number;
  readonly numImages: number;
}

/** Makes pictures, one job at a time. */
export interface PictureMaker {
  /** The model's public name. */
  readonly model: string;
  readonly defaults: PictureDefaults;
  /** The job's PNG files; rejects with the code `aborted` soon after the signal fires. */
  make(job: PictureJob, signal: AbortSignal): Promise<readonly Uint8Array[]>;
  /** Frees the model. */
  close(): Promise<void>;
}
