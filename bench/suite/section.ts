/** What a section of the suite is, and what it gives. */

import type { Comparison, Missing } from "./measure.ts";

/** A single number that stands for itself. */
export interface Figure {
  readonly name: string;
  readonly value: number;
  readonly unit: string;
  /** What else belongs to it. */
  readonly detail?: unknown;
}

/** What a section found. */
export interface SectionResult {
  readonly comparisons?: readonly Comparison[];
  readonly figures?: readonly Figure[];
  readonly missing?: readonly Missing[];
}

/** What the command line says to all sections. */
export interface SectionOptions {
  /** Rounds of every comparison. */
  readonly rounds: number;
  /** A Python with torch and diffusers. */
  readonly python: string;
  /** stable-diffusion.cpp's program. */
  readonly native: string;
  /** A folder for models that are made once and used again. */
  readonly models: string;
  /** Sizes at which a section shows only that it runs. */
  readonly tiny?: boolean;
}

/** A part of the suite. */
export interface Section {
  readonly about: string;
  /** Whether its figures differ between engines; else it runs in the first runtime alone. */
  readonly perRuntime: boolean;
  /** Not part of a run without names: it needs more time or disk than the rest. */
  readonly onlyByName?: boolean;
  run(options: SectionOptions): Promise<SectionResult>;
}
