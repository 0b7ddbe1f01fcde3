/** Golden runs of Diffusers' FluxPipeline: how to call it and what must come out. */

import { readdirSync, readFileSync } from "node:fs";
import { parseSafetensors } from "../../src/io/safetensors.ts";
import type { FluxGenerateOptions, FluxPipelineOutput } from "../../src/pipelines/flux_options.ts";
import type { PipelineImage } from "../../src/pipelines/image.ts";
import type { HostTensor } from "../../src/tensor/host_tensor.ts";

/** A golden run. */
export interface GoldenRun {
  readonly name: string;
  /** The model folder. */
  readonly folder: string;
  readonly options: FluxGenerateOptions;
  readonly tensors: ReadonlyMap<string, HostTensor>;
}

/** A run of a golden model that takes a moment, for what is not compared with Diffusers. */
export const SMALL_CALL = {
  prompt: "a red star",
  width: 16,
  height: 8,
  numInferenceSteps: 2,
  maxSequenceLength: 8,
  seed: 3,
};

const PIPELINES = new URL("../goldens/pipelines/", import.meta.url).pathname;

/** Names of all golden runs. */
export function goldenNames(): string[] {
  return readdirSync(PIPELINES).sort();
}

/** Reads one golden run. */
export function readGolden(name: string): GoldenRun {
  const folder = PIPELINES + name;
  const path = `${folder}/golden.safetensors`;
  const tensors = parseSafetensors(new Uint8Array(readFileSync(path)), path);
  const golden = JSON.parse(readFileSync(`${folder}/golden.json`, "utf8"));
  const options: Record<string, unknown> = {};
  for (const [key, value] of Object.entries(golden.arguments)) options[camelCase(key)] = value;
  for (const key of golden.tensor_arguments) {
    options[camelCase(key)] = tensors.get(`argument.${key}`);
  }
  return { name, folder, options, tensors };
}

function camelCase(name: string): string {
  return name.replaceAll(/_(\w)/g, (_, letter: string) => letter.toUpperCase());
}

/** How far a run is from its golden. */
export interface GoldenErrors {
  /** Largest difference of the last latents, relative to the largest value. */
  readonly latents: number;
  /** Peak signal-to-noise ratio of the pictures in decibels, the worst of the batch. */
  readonly psnr: number;
}

/** Compares a run with its golden. */
export function goldenErrors(golden: GoldenRun, output: FluxPipelineOutput): GoldenErrors {
  const steps = golden.tensors.get("latents")!;
  const expected = steps.toFloat32().subarray(-(steps.size / steps.shape[0]));
  const image = golden.tensors.get("image")!;
  const length = image.size / image.shape[0];
  const psnrs = output.images.map((picture, index) =>
    psnr(picture, image.toFloat32().subarray(index * length, (index + 1) * length))
  );
  return {
    latents: relativeError(output.latents.toFloat32(), expected),
    psnr: Math.min(...psnrs),
  };
}

/** The largest difference relative to the largest expected value; NaN counts as infinite. */
export function relativeError(found: Float32Array, expected: Float32Array): number {
  if (found.length !== expected.length) throw new Error(`${found.length} != ${expected.length}`);
  let difference = 0;
  let largest = 0;
  found.forEach((value, i) => {
    const here = Math.abs(value - expected[i]);
    difference = Number.isNaN(here) ? Infinity : Math.max(difference, here);
    largest = Math.max(largest, Math.abs(expected[i]));
  });
  return difference / largest;
}

/** PSNR of 8-bit pixels against expected values in 0..1, rounded to 8 bits as well. */
export function psnr(picture: PipelineImage, expected: Float32Array): number {
  if (picture.pixels.length !== expected.length) {
    throw new Error(`${picture.pixels.length} pixels, expected ${expected.length}`);
  }
  let squares = 0;
  picture.pixels.forEach((value, i) => squares += (value - Math.round(255 * expected[i])) ** 2);
  return squares === 0 ? Infinity : 10 * Math.log10(255 ** 2 * expected.length / squares);
}
