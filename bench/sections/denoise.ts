/** A denoising step beside native code: a random Flux of width 1024 with weights of Q4_0, and stable-diffusion.cpp. */

import { execFileSync } from "node:child_process";
import { existsSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { openStableDiffusion } from "../peers/stable_diffusion_cpp.ts";
import { openRandomStep, type RandomStep } from "../random_step.ts";
import { fluxConfig, writeRandomTransformer } from "../random_transformer.ts";
import { compare } from "../suite/measure.ts";
import type { Section, SectionOptions } from "../suite/section.ts";
import { runtimeName } from "../../src/runtime/system.ts";
import { int8Activations } from "../weight_cases.ts";

/** stable-diffusion.cpp takes 256 tokens of text. */
const TEXT_TOKENS = 256;
const THREADS = 2;
const FORMAT = "gguf:Q4_0";
const FULL = { config: fluxConfig(4, 8, 8), pixels: 512, steps: 2 };
const TINY = { config: fluxConfig(1, 1, 2), pixels: 32, steps: 1 };

const MODES: Readonly<Record<string, Pick<RandomStep, "activations" | "qkDtype">>> = {
  "halftone": {},
  "halftone, int8": { activations: int8Activations() },
  "halftone, int8, attention int8": { activations: int8Activations(), qkDtype: "int8" },
};

/** The section. */
export const denoise: Section = {
  about: "a step of a random Flux of width 1024, 4 + 8 blocks, Q4_0, beside stable-diffusion.cpp",
  perRuntime: true,
  run: async (options) => {
    const { config, pixels, steps } = options.tiny ? TINY : FULL;
    const shared = { config, pixels, threads: THREADS, quantize: FORMAT, textTokens: TEXT_TOKENS };
    const ours = Object.entries(MODES).map(([name, mode]) => ({
      name,
      open: () => openRandomStep(name, { ...shared, ...mode }),
    }));
    const peer = "stable-diffusion.cpp";
    const { rounds, native } = options;
    const request = {
      name: "denoising step",
      threads: THREADS,
      rounds,
      warmUps: 1,
      subjects: Object.keys(MODES),
      sameWork: false, // the same shapes, weights of each one's own
    };
    const picture = { pixels, steps, threads: THREADS };
    const open = async () => {
      const files = { ...nativeParts(options), model: await gguf(options) };
      return openStableDiffusion(peer, native, { ...picture, ...files });
    };
    return { comparisons: [await compare(request, [...ours, { name: peer, open }])] };
  },
};

/** Writes the file that stable-diffusion.cpp reads where it is missing, as `halftone quantize` does. */
async function gguf({ models, tiny }: SectionOptions): Promise<string> {
  const name = join(models, tiny ? "tiny-wide" : "wide");
  const file = `${name}-Q4_0.gguf`;
  if (!existsSync(file)) {
    const source = join(`${name}-bfloat16`, "transformer");
    await writeRandomTransformer(source, (tiny ? TINY : FULL).config);
    const main = fileURLToPath(new URL("../../cli/main.ts", import.meta.url));
    const runtime = runtimeName() === "deno" ? ["run", "-A", "--no-check"] : [];
    const words = ["quantize", source, file, "--quantize", FORMAT];
    execFileSync(process.execPath, [...runtime, main, ...words], { stdio: "inherit" });
  }
  return file;
}

/** Writes the autoencoder and the text encoder that the peer does not start without where they are missing. */
function nativeParts({ models, native, python }: SectionOptions): { vae: string; clip: string } {
  execFileSync(native, ["--version"], { stdio: "ignore" }); // not there: nothing to be written
  const folder = join(models, "native");
  const vae = join(folder, "vae/diffusion_pytorch_model.safetensors");
  const clip = join(folder, "clip.safetensors");
  if (!existsSync(clip)) {
    const script = fileURLToPath(new URL("../peers/make_native_parts.py", import.meta.url));
    execFileSync(python, [script, folder], { stdio: "inherit" });
  }
  return { vae, clip };
}
