/** The sections of the suite by the name the command line gives them. */

import { attention } from "../sections/attention.ts";
import { blockPair } from "../sections/block_pair.ts";
import { denoise } from "../sections/denoise.ts";
import { dispatch } from "../sections/dispatch.ts";
import { fluxSchnell } from "../sections/flux_schnell.ts";
import { linearFloat32 } from "../sections/linear_float32.ts";
import { linearFormats } from "../sections/linear_formats.ts";
import { linearInt4 } from "../sections/linear_int4.ts";
import { linearInt8 } from "../sections/linear_int8.ts";
import { loading } from "../sections/loading.ts";
import { modules } from "../sections/modules.ts";
import { pictureDemo, pictureMid } from "../sections/picture.ts";
import { quantizeMemory } from "../sections/quantize_memory.ts";
import { threads } from "../sections/threads.ts";
import type { Section } from "./section.ts";

/** In the order they run. */
export const SECTIONS: Readonly<Record<string, Section>> = {
  "linear-float32": linearFloat32,
  "linear-int4": linearInt4,
  "linear-int8": linearInt8,
  "linear-formats": linearFormats,
  attention,
  threads,
  dispatch,
  "picture-demo": pictureDemo,
  "picture-mid": pictureMid,
  "block-pair": blockPair,
  denoise,
  loading,
  "quantize-memory": quantizeMemory,
  modules,
  "flux-schnell": fluxSchnell,
};

/** The sections that a word of the command line means: one of them, or all whose names begin so. */
export function sectionsCalled(word: string): string[] {
  const names = Object.keys(SECTIONS);
  const called = names.includes(word)
    ? [word]
    : names.filter((name) => name.startsWith(`${word}-`));
  if (called.length === 0) {
    throw new Error(`no section is called ${word}; there are: ${names.join(", ")}`);
  }
  return called;
}
