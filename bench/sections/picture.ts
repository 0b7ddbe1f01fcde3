/** Whole pictures beside Diffusers: same checkpoint, prompts, seed, steps and threads. */

import { execFileSync } from "node:child_process";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { openPicture, type PictureMode, type PictureRequest } from "../halftone_picture.ts";
import { openTorch } from "../peers/torch.ts";
import { compare, type Comparison, type OpenContender } from "../suite/measure.ts";
import type { Section, SectionOptions } from "../suite/section.ts";

/** Modes that round activations to int8. */
const Q4_0: PictureMode = { quantize: ["gguf:Q4_0"], activations: "int8" };
const DEMO_MODES: Readonly<Record<string, PictureMode>> = {
  "halftone float32": {},
  "halftone Q8_0, int8": { quantize: ["gguf:Q8_0"], activations: "int8" },
  "halftone Q4_0, int8": Q4_0,
};
const MID_MODES: Readonly<Record<string, PictureMode>> = {
  "halftone Q4_0, int8": Q4_0,
  "halftone Q4_0, int8, attention int8": { ...Q4_0, attention: "int8" },
};
const THREADS = 2;
/** PyTorch takes many times as long where the processor has no bfloat16 arithmetic; after this it gets no turn. */
const BFLOAT16_SECONDS = 90;

/** The demo model. */
export const pictureDemo: Section = {
  about: "a whole picture, demo model, 128 x 128, 20 steps, two threads",
  perRuntime: true,
  run: async (options) => {
    const model = fileURLToPath(new URL("../../models/demo", import.meta.url));
    const request = { model, threads: THREADS, width: 128, height: 128, steps: 20 };
    return {
      comparisons: [await compared("demo picture", request, opened(DEMO_MODES, request), options)],
    };
  },
};

/** A model of width 1024. */
export const pictureMid: Section = {
  about: "a whole picture, random Flux of width 1024 with 4 + 8 blocks, 512 x 512, two threads",
  perRuntime: true,
  run: async (options) => {
    const { tiny = false } = options;
    const size = { width: tiny ? 32 : 512, height: tiny ? 32 : 512 };
    const request = { model: midModel(options), threads: THREADS, ...size, steps: tiny ? 1 : 4 };
    const ours = (request: PictureRequest) => opened(MID_MODES, request);
    const oneStep = { ...request, steps: 1 };
    return {
      comparisons: [
        await compared("mid-sized picture", request, ours(request), options),
        await compared("mid-sized picture, one step, bfloat16", oneStep, ours(oneStep), {
          ...options,
          rounds: 1,
        }, { dtype: "bfloat16", limit: BFLOAT16_SECONDS }),
      ],
    };
  },
};

function opened(
  modes: Readonly<Record<string, PictureMode>>,
  request: PictureRequest,
): OpenContender[] {
  return Object.entries(modes).map(([name, mode]) => ({
    name,
    open: () => openPicture(name, request, mode),
  }));
}

/** Our modes beside Diffusers. */
function compared(
  name: string,
  { model, threads, width, height, steps }: PictureRequest,
  ours: readonly OpenContender[],
  { rounds, python }: SectionOptions,
  { dtype = "float32", limit }: { dtype?: "float32" | "bfloat16"; limit?: number } = {},
): Promise<Comparison> {
  const words = ["picture", model, dtype, threads, width, height, steps];
  const peer = `Diffusers ${dtype}`;
  const subjects = ours.map(({ name }) => name);
  // With a limit the peer has done its work once when it is open.
  const warmUps = limit === undefined ? 1 : 0;
  return compare({ name, threads, rounds, warmUps, subjects, sameWork: true }, [
    ...ours,
    { name: peer, open: () => openTorch(peer, python, words, [], limit) },
  ]);
}

/** Makes the model where it is missing. */
function midModel({ models, python, tiny }: SectionOptions): string {
  const folder = join(models, tiny ? "mid-tiny" : "mid");
  if (existsSync(join(folder, "model_index.json"))) return folder;
  const script = new URL("../../test/goldens/make_random_flux.py", import.meta.url);
  const words = tiny ? ["--heads", "2", "--double", "1", "--single", "1"] : [];
  execFileSync(python, [fileURLToPath(script), folder, ...words], { stdio: "inherit" });
  return folder;
}
