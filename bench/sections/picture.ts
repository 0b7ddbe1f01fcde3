/** Whole pictures beside Diffusers: same checkpoint, prompts, seed, steps and threads. */

import { execFileSync } from "node:child_process";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { openPicture, type PictureRequest } from "../halftone_picture.ts";
import { openTorch } from "../peers/torch.ts";
import { compare, type Comparison } from "../suite/measure.ts";
import type { Section, SectionOptions } from "../suite/section.ts";

/** Formats of the modes that round activations to int8: the best one counts. */
const INT8_MODES = {
  "halftone Q8_0, int8": ["gguf:Q8_0"],
  "halftone Q4_0, int8": ["gguf:Q4_0"],
};
const THREADS = 2;

/** The demo model. */
export const pictureDemo: Section = {
  about: "a whole picture, demo model, 128 x 128, 20 steps, two threads",
  perRuntime: true,
  run: async (options) => {
    const model = fileURLToPath(new URL("../../models/demo", import.meta.url));
    const request = { model, threads: THREADS, width: 128, height: 128, steps: 20 };
    return { comparisons: [await compared("demo picture", request, options)] };
  },
};

/** A model of width 1024. */
export const pictureMid: Section = {
  about: "a whole picture, random Flux of width 1024 with 4 + 8 blocks, 512 x 512, two threads",
  perRuntime: true,
  run: async (options) => {
    const model = midModel(options);
    const request = { model, threads: THREADS, width: 512, height: 512, steps: 4 };
    return {
      comparisons: [
        await compared("mid-sized picture", request, options),
        await comparedWithBfloat16({ ...request, steps: 1 }, options),
      ],
    };
  },
};

function compared(name: string, request: PictureRequest, options: SectionOptions) {
  return between(name, request, options, "float32");
}

/** One step only: where the processor has no bfloat16 arithmetic, PyTorch's is very slow. */
function comparedWithBfloat16(request: PictureRequest, options: SectionOptions) {
  return between("mid-sized picture, one step, bfloat16", request, options, "bfloat16");
}

function between(
  name: string,
  request: PictureRequest,
  { rounds, python }: SectionOptions,
  dtype: "float32" | "bfloat16",
): Promise<Comparison> {
  const { model, threads, width, height, steps } = request;
  const words = ["picture", model, dtype, threads, width, height, steps];
  const peer = `Diffusers ${dtype}`;
  const float = "halftone float32";
  const subjects = [float, ...Object.keys(INT8_MODES)];
  return compare({ name, threads, rounds, warmUps: 1, subjects, sameWork: true }, [
    { name: float, open: () => openPicture(float, request) },
    ...Object.entries(INT8_MODES).map(([name, formats]) => ({
      name,
      open: () => openPicture(name, request, formats, "int8"),
    })),
    { name: peer, open: () => openTorch(peer, python, words, []) },
  ]);
}

/** Makes the model where it is missing. */
function midModel({ models, python }: SectionOptions): string {
  const folder = join(models, "mid");
  if (existsSync(join(folder, "model_index.json"))) return folder;
  const script = new URL("../../test/goldens/make_random_flux.py", import.meta.url);
  execFileSync(python, [fileURLToPath(script), folder], { stdio: "inherit" });
  return folder;
}
