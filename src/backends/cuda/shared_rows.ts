/**
 * Rounded activations that belong to more than one step: several linear layers round the same x alike, to codes or to 16
 * bits, or the step that makes x can write codes. They are found before steps are encoded, and lie in a region of
 * their own.
 */

import { isRowWise, type QuantizedActivations } from "../../ops/activation_mode.ts";
import type { Plan } from "../../plan/plan.ts";
import type { Life } from "../../plan/place.ts";
import { aligned } from "../alignment.ts";
import type { MatrixView } from "../operand_view.ts";
import { codesKey, type SameInput, stepsBySameInput } from "../same_input.ts";
import { type BufferHistory, matrixOf, sameMatrix } from "./buffer_history.ts";
import { type CodePlaces, placeCodes } from "./code_places.ts";
import { rowsTaken, type TakenRows } from "./rows_taken.ts";
import type { Products } from "./cuda_step.ts";
import { OPERAND_BYTES } from "./matmul_precision.ts";

/** Rounded rows that some steps share. */
export class SharedRows implements Life {
  readonly taken: TakenRows;
  readonly bytes: number;
  readonly firstStep: number;
  readonly lastStep: number;
  /** From the region's start. */
  offset = 0;
  /** Whether they are there: the first step that can makes them. */
  isMade = false;
  readonly layers: readonly number[];
  /** The step that makes x and may write them; null where there is none that could. */
  readonly producer: number | null;
  /** Whether x itself is read too. */
  readonly keepsFloats: boolean;
  readonly #x: MatrixView;

  constructor(group: Group, x: MatrixView, producer: number | null, keepsFloats: boolean) {
    this.taken = group.rounding;
    this.layers = group.steps;
    this.producer = producer;
    this.keepsFloats = keepsFloats;
    this.#x = x;
    this.bytes = this.#end();
    this.firstStep = producer ?? group.steps[0]!;
    this.lastStep = group.steps.at(-1)!;
  }

  /** Where codes lie in a region that begins at an address. */
  places(region: number): CodePlaces {
    const { taken } = this;
    if (taken.kind === "narrow") throw new TypeError("rows of 16 bits are no codes");
    let end = region + this.offset;
    return placeCodes(this.#x, taken.mode, (bytes) => {
      const place = end;
      end += aligned(bytes);
      return place;
    });
  }

  #end(): number {
    const { taken } = this;
    const { rows, columns } = this.#x;
    if (taken.kind === "narrow") return aligned(rows * columns * OPERAND_BYTES[taken.type]);
    let end = 0;
    placeCodes(this.#x, taken.mode, (bytes) => end += aligned(bytes));
    return end;
  }

  /** How the step that makes x brings it to codes; null where that must see all of x first. */
  get roundsByRow(): QuantizedActivations | null {
    return rowMode(this.taken);
  }
}

function rowMode(taken: TakenRows): QuantizedActivations | null {
  const isCodes = taken.kind === "int8" || taken.kind === "float8";
  return isCodes && isRowWise(taken.mode) ? taken.mode : null;
}

type Group = SameInput<TakenRows>;

/** Rows that are worth a place of their own, of the steps that `isApart` tells, in the order of those that read first. */
export function findSharedRows(
  plan: Plan,
  history: BufferHistory,
  products: Products,
  isApart: (step: number) => boolean,
): SharedRows[] {
  const producers = new Set<number>();
  return groupsOf(plan, products, isApart).flatMap((group) => {
    if (group.x.kind !== "activation") return [];
    const x = matrixOf(plan, group.x);
    const producer = producerOf(plan, history, group, { buffer: group.x.buffer, x });
    const isFirst = producer !== null && !producers.has(producer.step);
    if (isFirst) producers.add(producer.step);
    const shared = new SharedRows(
      group,
      x,
      isFirst ? producer.step : null,
      producer?.keepsFloats ?? true,
    );
    return group.steps.length > 1 || isFirst ? [shared] : [];
  });
}

/** Layers by the x that they read and how they round it. */
function groupsOf(
  plan: Plan,
  products: Products,
  isApart: (step: number) => boolean,
): Group[] {
  return stepsBySameInput(plan, (step, x, index) => {
    const rounding = rowsTaken(plan, step, products);
    if (rounding === null || x.kind !== "activation" || !isApart(index)) return null;
    const key = rounding.kind === "narrow" ? rounding.type : codesKey(rounding.mode);
    return { rounding, key: [matrixOf(plan, x), key] };
  });
}

/** The norm or layer whose output is the x of a group, and whether others read it too. */
function producerOf(
  plan: Plan,
  history: BufferHistory,
  { rounding, writes, steps }: Group,
  { buffer, x }: { readonly buffer: number; readonly x: MatrixView },
): { step: number; keepsFloats: boolean } | null {
  if (writes === 0 || rowMode(rounding) === null) return null;
  const step = history.writer(buffer, writes - 1);
  const { op, attributes } = plan.steps[step]!;
  const isRowNorm = op === "norm" && attributes.kind !== "group";
  if (!isRowNorm && op !== "linear" || !sameMatrix(history.written(step), x)) return null;
  const reads = history.readsAfter(buffer, writes - 1, x);
  const keepsFloats = reads === null ||
    reads.some((read) => read.operand !== 0 || !steps.includes(read.step));
  return { step, keepsFloats };
}
