/**
 * Codes of activations that belong to more than one step: several linear layers round the same x alike, or the step that
 * makes x can write its codes. They are found before steps are encoded, and lie in a region of their own.
 */

import { isRowWise, type QuantizedActivations } from "../../ops/activation_mode.ts";
import type { Plan } from "../../plan/plan.ts";
import type { Life } from "../../plan/place.ts";
import { aligned } from "../alignment.ts";
import type { MatrixView } from "../operand_view.ts";
import { type BufferHistory, matrixOf, sameMatrix } from "./buffer_history.ts";
import { type CodePlaces, placeCodes } from "./code_places.ts";
import { codesTaken, type TakenCodes } from "./codes_taken.ts";
import type { Products } from "./cuda_step.ts";

/** Codes that some steps share. */
export class SharedCodes implements Life {
  readonly taken: TakenCodes;
  readonly bytes: number;
  readonly firstStep: number;
  readonly lastStep: number;
  /** From the region's start. */
  offset = 0;
  /** Whether codes are there: the first step that can makes them. */
  isMade = false;
  readonly layers: readonly number[];
  /** The step that makes x and may write these codes; null where there is none that could. */
  readonly producer: number | null;
  /** Whether x itself is read too. */
  readonly keepsFloats: boolean;
  readonly #x: MatrixView;

  constructor(group: Group, producer: number | null, keepsFloats: boolean) {
    this.taken = group.taken;
    this.layers = group.layers;
    this.producer = producer;
    this.keepsFloats = keepsFloats;
    this.#x = group.x;
    this.bytes = this.#place(0).end;
    this.firstStep = producer ?? group.layers[0]!;
    this.lastStep = group.layers.at(-1)!;
  }

  /** Where the codes lie in a region that begins at an address. */
  places(region: number): CodePlaces {
    return this.#place(region + this.offset).places;
  }

  #place(start: number): { places: CodePlaces; end: number } {
    let end = start;
    const places = placeCodes(this.#x, this.taken.mode, (bytes) => {
      const place = end;
      end += aligned(bytes);
      return place;
    });
    return { places, end };
  }

  /** How the step that makes x rounds it; null where that must see all of x first. */
  get roundsByRow(): QuantizedActivations | null {
    const { mode } = this.taken;
    return mode.kind === "quantized" && isRowWise(mode) ? mode : null;
  }
}

interface Group {
  readonly taken: TakenCodes;
  readonly x: MatrixView;
  readonly buffer: number;
  /** Writes of the buffer before. */
  readonly writes: number;
  readonly layers: number[];
}

/** Codes that are worth a place of their own, in the order of the steps that read them first. */
export function findSharedCodes(
  plan: Plan,
  history: BufferHistory,
  products: Products,
): SharedCodes[] {
  const producers = new Set<number>();
  return [...groupsOf(plan, history, products)].flatMap((group) => {
    const producer = producerOf(plan, history, group);
    const isFirst = producer !== null && !producers.has(producer.step);
    if (isFirst) producers.add(producer.step);
    const shared = new SharedCodes(
      group,
      isFirst ? producer.step : null,
      producer?.keepsFloats ?? true,
    );
    return group.layers.length > 1 || isFirst ? [shared] : [];
  });
}

/** Layers by the x that they read and how they round it. */
function groupsOf(plan: Plan, history: BufferHistory, products: Products): Iterable<Group> {
  const groups = new Map<string, Group>();
  plan.steps.forEach((step, index) => {
    const taken = codesTaken(plan, step, products);
    const input = step.inputs[0];
    if (taken === null || input?.kind !== "activation") return;
    const x = matrixOf(plan, input);
    const writes = history.writesBefore(input.buffer, index);
    const mode = { ...taken.mode, int16Tables: undefined }; // of the weight
    const key = JSON.stringify([input.buffer, writes, x, taken.kind === "llm_int8", mode]);
    const group = groups.get(key) ?? { taken, x, buffer: input.buffer, writes, layers: [] };
    group.layers.push(index);
    groups.set(key, group);
  });
  return groups.values();
}

/** The norm or layer whose output is the x of a group, and whether others read it too. */
function producerOf(
  plan: Plan,
  history: BufferHistory,
  { taken: { mode }, x, buffer, writes, layers }: Group,
): { step: number; keepsFloats: boolean } | null {
  if (writes === 0 || mode.kind !== "quantized" || !isRowWise(mode)) return null;
  const step = history.writer(buffer, writes - 1);
  const { op, attributes } = plan.steps[step]!;
  const canRound = op === "linear" || op === "norm" && attributes.kind !== "group";
  if (!canRound || !sameMatrix(history.written(step), x)) return null;
  const reads = history.readsAfter(buffer, writes - 1, x);
  const keepsFloats = reads === null ||
    reads.some((read) => read.operand !== 0 || !layers.includes(read.step));
  return { step, keepsFloats };
}
