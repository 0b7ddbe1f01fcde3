/**
 * stable-diffusion.cpp's command line, built by whoever runs the benchmark. It wants an autoencoder and CLIP beside the
 * transformer; without T5 its text is 256 tokens of zeros. Only its denoising is timed, by the lines that it prints around it.
 */

import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { readFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import type { Contender, Sample } from "../suite/measure.ts";

/** What it draws. */
export interface NativePicture {
  /** The transformer, a GGUF file under Black Forest Labs' names. */
  readonly model: string;
  /** FLUX.1's autoencoder and CLIP, safetensors files. */
  readonly vae: string;
  readonly clip: string;
  /** Pixels of a side. */
  readonly pixels: number;
  readonly steps: number;
  readonly threads: number;
}

/** The last line before the first step, and the first after the last. */
const STARTS = /generating image: 1/;
const ENDS = /sampling completed, taking ([\d.]+)s/;
/** Of the clock that /proc counts processor time with. */
const TICKS_PER_SECOND = 100;

/** The program as a contender; a run is one denoising step, the mean over the picture's. */
export function openStableDiffusion(
  name: string,
  program: string,
  picture: NativePicture,
): Contender {
  const version = versionOf(program);
  return {
    name,
    version,
    settings: { ...picture },
    run: () => denoise(program, picture),
    close: () => Promise.resolve(),
  };
}

function versionOf(program: string): string {
  const text = execFileSync(program, ["--version"], { encoding: "utf8" });
  return text.trim().split("\n")[0]!.slice(0, 80);
}

async function denoise(
  program: string,
  { model, vae, clip, pixels, steps, threads }: NativePicture,
): Promise<Sample> {
  const child = spawn(program, [
    ...["--diffusion-model", model, "--vae", vae, "--clip_l", clip, "-p", "a star"],
    ...["--cfg-scale", "1", "--sampling-method", "euler"],
    ...["-W", String(pixels), "-H", String(pixels), "--steps", String(steps)],
    ...["-t", String(threads), "-v", "-o", join(tmpdir(), "halftone-bench.png")],
  ], { stdio: ["ignore", "pipe", "pipe"] });
  const sample = await timedSampling(child);
  child.kill("SIGKILL"); // the decoder is not measured
  return { wall: sample.wall / steps, processor: sample.processor / steps };
}

/** Reads both outputs until the lines around the sampling have come. */
async function timedSampling(child: ChildProcess): Promise<Sample> {
  let started = 0;
  const last: string[] = [];
  const found = Promise.withResolvers<Sample>();
  for (const stream of [child.stdout!, child.stderr!]) {
    createInterface({ input: stream }).on("line", (line) => {
      last.push(line);
      if (STARTS.test(line)) started = processorSeconds(child.pid!);
      const seconds = ENDS.exec(line)?.[1];
      if (seconds === undefined) return;
      const processor = processorSeconds(child.pid!) - started;
      found.resolve({ wall: Number(seconds), processor });
    });
  }
  child.on("error", found.reject);
  child.on("close", () => found.reject(new Error(last.slice(-3).join("; "))));
  return await found.promise;
}

/** User and system time of a process so far. */
function processorSeconds(id: number): number {
  const fields = readFileSync(`/proc/${id}/stat`, "utf8").split(") ")[1]!.split(" ");
  return (Number(fields[11]) + Number(fields[12])) / TICKS_PER_SECOND;
}
