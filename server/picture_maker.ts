/** What the server needs of a pipeline: small enough that a test can write a false one. */

/** What a model recommends for requests that do not say; the pipeline knows the rest. */
export interface PictureDefaults {
  readonly width?: number;
  readonly height?: number;
  readonly numInferenceSteps?: number;
  readonly guidanceScale?: number;
}

/** One request. */
export interface PictureJob extends PictureDefaults {
  readonly prompt: string;
  readonly negativePrompt?: string;
  readonly trueCfgScale: number;
  readonly seed: number;
  readonly numImages: number;
}

/** What a job gives. */
export interface MadePictures {
  /** PNG files. */
  readonly files: readonly Uint8Array[];
  readonly width: number;
  readonly height: number;
}

/** Makes pictures, one job at a time. */
export interface PictureMaker {
  /** The model's public name. */
  readonly model: string;
  readonly defaults: PictureDefaults;
  /** Makes the job's pictures; rejects with the code `aborted` soon after the signal fires. */
  make(job: PictureJob, signal: AbortSignal): Promise<MadePictures>;
  /** Frees the model. */
  close(): Promise<void>;
}
