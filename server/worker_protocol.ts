/** What the HTTP thread and the thread that makes pictures say to each other: plain data only. */

import type { BackendName } from "../src/backends/select.ts";
import type { FluxPipelineOptions, LoadProgress } from "../src/pipelines/flux_options.ts";
import type { MadePictures, PictureDefaults, PictureJob } from "./picture_maker.ts";

/** The options of a pipeline that are plain data, so that they can go to another thread. */
export type PlainPipelineOptions =
  & Omit<
    FluxPipelineOptions,
    | "backend"
    | "transformer"
    | "textEncoder2"
    | "quantizationConfig"
    | "signal"
    | "onProgress"
    | "onWarning"
  >
  & {
    readonly backend?: BackendName;
    readonly transformer?: string;
    readonly textEncoder2?: string;
  };

/** Which pipeline to open, and how. */
export interface PipelineSetup {
  /** The model's folder. */
  readonly path: string;
  /** The model's public name. */
  readonly model: string;
  readonly defaults: PictureDefaults & { readonly maxSequenceLength?: number };
  readonly options: PlainPipelineOptions;
  /** `[component=]method:format`. */
  readonly quantize: readonly string[];
  /** Whether Flux's outer modules are quantized too. */
  readonly quantizeOuter?: boolean;
}

/** From the HTTP thread. */
export type MakerRequest =
  | { readonly kind: "open"; readonly setup: PipelineSetup }
  | { readonly kind: "make"; readonly id: number; readonly job: PictureJob }
  | { readonly kind: "abort"; readonly id: number }
  | { readonly kind: "close" };

/** From the thread that makes pictures. */
export type MakerAnswer =
  | { readonly kind: "progress"; readonly progress: LoadProgress }
  | { readonly kind: "warning"; readonly message: string }
  | { readonly kind: "opened" }
  | { readonly kind: "made"; readonly id: number; readonly made: MadePictures }
  | { readonly kind: "failed"; readonly id: number; readonly error: PlainError }
  | { readonly kind: "closed" };

/** The id under which opening fails. */
export const OPENING = 0;

/** An error as data; `code` is absent for those that have none. */
export interface PlainError {
  readonly code?: string;
  readonly message: string;
}
