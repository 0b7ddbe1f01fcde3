/** Measuring side by side: contenders take turns, so that what disturbs one disturbs all. */

import process from "node:process";
import { median } from "../machine.ts";

/** Seconds of one run. */
export interface Sample {
  readonly wall: number;
  /** Of all threads of the contender's process. */
  readonly processor: number;
}

/** Something that does the work which is measured. */
export interface Contender {
  readonly name: string;
  readonly version: string;
  /** Whatever else a reader needs to repeat it. */
  readonly settings?: Readonly<Record<string, unknown>>;
  /** Does the work once; `round` counts from 0 and may vary what is worked on, never how much. */
  run(round: number): Promise<Sample>;
  /** The result of the last run, where contenders can be held against each other. */
  output?(): Promise<Float32Array>;
  close(): Promise<void>;
}

/** A contender that could not take part. */
export interface Missing {
  readonly name: string;
  readonly reason: string;
}

/** The middle of some numbers, and how far they lie apart. */
export interface Spread {
  readonly median: number;
  readonly least: number;
  readonly most: number;
  readonly samples: readonly number[];
}

/** What was measured of one contender. */
export interface Measured {
  readonly name: string;
  readonly version: string;
  readonly settings: Readonly<Record<string, unknown>>;
  /** Seconds. */
  readonly wall: Spread;
  /** Seconds. */
  readonly processor: Spread;
  /** Billions of the comparison's unit per second on the clock. */
  readonly rate?: number;
  /** Frobenius norm of the difference from the first contender's result over that result's norm. */
  readonly distance?: number;
}

/** A peer's time over a subject's: over 1, the subject is faster. */
export interface Ratio {
  readonly subject: string;
  readonly peer: string;
  readonly wall: number;
  readonly processor: number;
  /** Of the rounds taken alone. */
  readonly least: number;
  readonly most: number;
}

/** How much one run does. */
export interface Work {
  readonly amount: number;
  /** Floating-point operations, or integer ones in their place; or bytes. */
  readonly unit: "FLOP" | "B";
}

/** One piece of work, done by several. */
export interface Comparison {
  readonly name: string;
  readonly threads: number;
  /** What one run comes to. */
  readonly work?: Work;
  readonly contenders: readonly Measured[];
  readonly ratios: readonly Ratio[];
  readonly missing: readonly Missing[];
}

/** What is compared. */
export interface ComparisonRequest {
  readonly name: string;
  readonly threads: number;
  readonly work?: Work;
  readonly rounds: number;
  /** Runs of each contender before any counts: engines compile while they run. */
  readonly warmUps?: number;
  /** Whose times stand below the fraction's line; the others stand above it. */
  readonly subjects: readonly string[];
  /** Whether all were given the same, so that their results can be held against each other. */
  readonly sameWork: boolean;
}

/** Opens a contender; throws an Error whose message says what is missing. */
export type OpenContender = { readonly name: string; readonly open: () => Promise<Contender> };

/** Times a piece of work of this process. */
export async function timed(work: () => Promise<unknown>): Promise<Sample> {
  const used = process.cpuUsage();
  const started = performance.now();
  await work();
  const wall = (performance.now() - started) / 1000;
  const { user, system } = process.cpuUsage(used);
  return { wall, processor: (user + system) / 1e6 };
}

/** Lets all contenders take turns. */
export async function compare(
  request: ComparisonRequest,
  openers: readonly OpenContender[],
): Promise<Comparison> {
  const missing: Missing[] = [];
  const contenders: Contender[] = [];
  for (const { name, open } of openers) {
    try {
      contenders.push(await open());
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error);
      missing.push({ name, reason: reason.split("\n")[0]! });
    }
  }
  try {
    return { ...await takeTurns(request, contenders), missing };
  } finally {
    for (const contender of contenders) await contender.close();
  }
}

async function takeTurns(
  request: ComparisonRequest,
  contenders: readonly Contender[],
): Promise<Omit<Comparison, "missing">> {
  const { name, threads, work, rounds, warmUps = 2, subjects, sameWork } = request;
  const samples = contenders.map((): Sample[] => []);
  for (const contender of contenders) {
    for (let i = 0; i < warmUps; i++) await contender.run(i);
  }
  for (let round = 0; round < rounds; round++) {
    for (const [index, contender] of contenders.entries()) {
      samples[index]!.push(await contender.run(warmUps + round));
    }
  }
  const distances = sameWork ? await distancesOf(contenders) : [];
  const measured = contenders.map((contender, index) =>
    measuredOf(contender, samples[index]!, work, distances[index])
  );
  return { name, threads, work, contenders: measured, ratios: ratios(measured, subjects) };
}

function measuredOf(
  { name, version, settings = {} }: Contender,
  samples: readonly Sample[],
  work: Work | undefined,
  distance: number | undefined,
): Measured {
  const wall = spread(samples.map((sample) => sample.wall));
  const processor = spread(samples.map((sample) => sample.processor));
  const rate = work && work.amount / wall.median / 1e9;
  return { name, version, settings, wall, processor, rate, distance };
}

/** The middle and the ends of some numbers. */
export function spread(samples: readonly number[]): Spread {
  const [least, most] = [Math.min(...samples), Math.max(...samples)];
  return { median: median(samples), least, most, samples };
}

function ratios(measured: readonly Measured[], subjects: readonly string[]): Ratio[] {
  const isSubject = ({ name }: Measured) => subjects.includes(name);
  const peers = measured.filter((one) => !isSubject(one));
  return measured.filter(isSubject).flatMap((subject) =>
    peers.map((peer) => {
      const rounds = peer.wall.samples.map((wall, round) => wall / subject.wall.samples[round]!);
      return {
        subject: subject.name,
        peer: peer.name,
        wall: peer.wall.median / subject.wall.median,
        processor: peer.processor.median / subject.processor.median,
        least: Math.min(...rounds),
        most: Math.max(...rounds),
      };
    })
  );
}

async function distancesOf(contenders: readonly Contender[]): Promise<(number | undefined)[]> {
  const outputs: (Float32Array | undefined)[] = [];
  for (const contender of contenders) outputs.push(await contender.output?.());
  const first = outputs[0];
  return outputs.map((output, index) =>
    index === 0 || first === undefined || output === undefined ? undefined : distance(output, first)
  );
}

function distance(values: Float32Array, exact: Float32Array): number {
  if (values.length !== exact.length) {
    throw new Error(`a contender gave ${values.length} numbers, not ${exact.length}`);
  }
  let difference = 0, norm = 0;
  for (let i = 0; i < exact.length; i++) {
    difference += (values[i]! - exact[i]!) ** 2;
    norm += exact[i]! ** 2;
  }
  return Math.sqrt(difference / norm);
}
