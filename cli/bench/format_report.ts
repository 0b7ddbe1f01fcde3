/** The table of `bench formats`, as JSON and as Markdown. */

import type { MachineSummary } from "../../src/runtime/system.ts";
import { byteText } from "../byte_text.ts";
import type { FormatRun } from "./format_runs.ts";
import { gmsd } from "./gmsd.ts";

/** A row, compared with float32. */
export interface FormatResult {
  readonly name: string;
  readonly bitsPerWeight: number | null;
  /** Bytes of all weights of the pipeline as they are stored. */
  readonly storedBytes: number;
  /** The most weight bytes held at once. */
  readonly residentBytes: number;
  /** The most of all: weights, intermediates, scratch. */
  readonly peakBytes: number;
  /** The median. */
  readonly secondsPerStep: number;
  /** ||v - v32|| / ||v32|| of a single step's velocity. */
  readonly velocityError: number;
  /** Decibels of the picture; null when no pixel differs. */
  readonly psnr: number | null;
  /** Gradient magnitude similarity deviation of the picture. */
  readonly gmsd: number;
}

/** A format that could not be run. */
export interface FormatFailure {
  readonly name: string;
  readonly bitsPerWeight: number | null;
  /** The code and the message of the error. */
  readonly failure: string;
}

/** The whole of it. */
export interface FormatReport {
  readonly model: string;
  readonly prompt: string;
  readonly seed: number;
  readonly steps: number;
  readonly width: number;
  readonly height: number;
  readonly backend: string;
  readonly machine: Partial<MachineSummary>;
  readonly formats: readonly FormatResult[];
  readonly failures: readonly FormatFailure[];
  /** Formats that were to be left out. */
  readonly leftOut: readonly string[];
}

/** Compares a run with that of float32. */
export function compared(run: FormatRun, exact: FormatRun): FormatResult {
  const { name, bitsPerWeight, memory, stepSeconds } = run;
  return {
    name,
    bitsPerWeight,
    storedBytes: memory.stored,
    residentBytes: memory.resident,
    peakBytes: memory.peak,
    secondsPerStep: median(stepSeconds),
    velocityError: relativeL2(run.velocity, exact.velocity),
    psnr: psnr(run.image.pixels, exact.image.pixels),
    gmsd: gmsd(run.image, exact.image),
  };
}

/** ||found - exact|| / ||exact||. */
export function relativeL2(found: Float32Array, exact: Float32Array): number {
  let [error, energy] = [0, 0];
  exact.forEach((value, index) => {
    error += (found[index]! - value) ** 2;
    energy += value ** 2;
  });
  return Math.sqrt(error / energy);
}

/** Peak signal to noise of 8-bit pixels in decibels; null when they are the same. */
export function psnr(found: Uint8Array, exact: Uint8Array): number | null {
  let error = 0;
  exact.forEach((value, index) => error += (found[index]! - value) ** 2);
  return error === 0 ? null : 10 * Math.log10(255 ** 2 * exact.length / error);
}

function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  return (sorted[sorted.length >> 1]! + sorted[(sorted.length - 1) >> 1]!) / 2;
}

const HEAD = [
  "format",
  "bits per weight",
  "stored",
  "resident",
  "peak",
  "seconds per step",
  "velocity error",
  "PSNR, dB",
  "GMSD",
];

/** A page with the table; `sheet` is the name of the picture beside it. */
export function reportMarkdown(report: FormatReport, sheet: string): string {
  const { model, prompt, seed, steps, width, height, backend, machine } = report;
  const rows = [...report.formats.map(cellsOf), ...report.failures.map(cellsOfFailure)];
  return [
    `# Formats on ${model}`,
    `"${prompt}", ${width}x${height}, ${steps} steps, seed ${seed}, backend ${backend}; ` +
    `${machine.processor ?? "unknown processor"}, ${machine.processors} threads, ` +
    `${machine.runtime}, ${machine.platform}. Every format is for \`transformer\` and ` +
    "`text_encoder_2`; the error of a single step's velocity (relative L2), the PSNR and the " +
    "GMSD of the picture are against float32 at the same seed.",
    markdownTable([HEAD, ...rows]),
    ...report.failures.map(({ name, failure }) => `\`${name}\` failed: ${failure}`),
    ...report.leftOut.length > 0 ? [`Left out: ${report.leftOut.map(quoted).join(", ")}.`] : [],
    `![One picture per format](${sheet})`,
  ].join("\n\n") + "\n";
}

function cellsOfFailure({ name, bitsPerWeight }: FormatFailure): string[] {
  const cells = [quoted(name), bitsPerWeight?.toFixed(2) ?? "", "failed"];
  return HEAD.map((_, column) => cells[column] ?? "");
}

function quoted(name: string): string {
  return name.includes(":") ? `\`${name}\`` : name;
}

function cellsOf(result: FormatResult): string[] {
  return [
    quoted(result.name),
    result.bitsPerWeight?.toFixed(2) ?? "",
    byteText(result.storedBytes),
    byteText(result.residentBytes),
    byteText(result.peakBytes),
    result.secondsPerStep.toFixed(3),
    result.velocityError === 0 ? "0" : result.velocityError.toExponential(2),
    psnrText(result.psnr),
    result.gmsd.toFixed(3),
  ];
}

/** Decibels with one digit, or that there is nothing to measure. */
export function psnrText(psnr: number | null): string {
  return psnr === null ? "same" : psnr.toFixed(1);
}

/** Columns of equal width, numbers flush right, as the formatter of the repository leaves them. */
function markdownTable(rows: readonly (readonly string[])[]): string {
  const widths = rows[0]!.map((_, column) => Math.max(...rows.map((row) => row[column]!.length)));
  const line = (cells: readonly string[]) => `| ${cells.join(" | ")} |`;
  const padded = rows.map((row) =>
    line(
      row.map((cell, column) =>
        column === 0 ? cell.padEnd(widths[column]!) : cell.padStart(widths[column]!)
      ),
    )
  );
  const rule = line(
    widths.map((width, column) => column === 0 ? "-".repeat(width) : `${"-".repeat(width - 1)}:`),
  );
  return [padded[0], rule, ...padded.slice(1)].join("\n");
}
