/**
 * Rounded rows of x in step scratch. Linear layers that round the same x alike share them: the first of the layers makes
 * them, and they stay until the last has run. Which layers those are is decided before anything is encoded.
 */

import { LLM_INT8_ROWS, type QuantizedActivations } from "../../ops/activation_mode.ts";
import { assignOffsets, type Life } from "../../plan/place.ts";
import type { Plan, PlanOperand, PlanStep } from "../../plan/plan.ts";
import { elementCount, type Shape } from "../../tensor/shape.ts";
import { aligned } from "../alignment.ts";
import { codesKey, type SameInput, stepsBySameInput } from "../same_input.ts";
import { type IntegerForm, integerForm, stripWords } from "./integer_weight.ts";

/** Rows of a strip; kernels-wasm/src/integer_kernel.rs holds the same. */
const STRIP_ROWS = 4;
/** Bytes of a code: the plain build takes int16 where the relaxed one takes bytes. */
const MOST_CODE_BYTES = 2;
/** The longest run of narrow products; k of a row is padded to it. */
const PADDED_RUN = 64;
/** The fewest k of a block; kernels-wasm/src/strips.rs, BLOCK_BYTES. */
const LEAST_BLOCK = 256;

/** How a linear layer rounds its x, and what its products need of the codes. */
export interface RowRounding {
  readonly mode: QuantizedActivations;
  /** The weight's form; null where products take what the codes stand for as floats. */
  readonly form: IntegerForm | null;
  /** LLM.int8(): from where on a value is an outlier; null for all others. */
  readonly threshold: number | null;
}

/** Where the rounded rows of x [m, k] lie. */
export interface RoundedRows {
  /** [m] float32: what a code is worth. */
  readonly scales: number;
  /** [m] float32: the code that means 0. */
  readonly zeros: number;
  /** [m, k] float32: what the codes stand for; 0 where products take codes. */
  readonly values: number;
  /** The words of Strips in kernels-wasm/src/strips.rs. */
  readonly strips: readonly number[];
  /** [k]: 1 where the column holds an outlier; 0 where nobody asks. */
  readonly marks: number;
}

/** How a step rounds its x; null where it does not. */
export function rowRounding(plan: Plan, step: PlanStep): RowRounding | null {
  if (step.op !== "linear") return null;
  const { activations } = step.attributes;
  const [x, weight] = step.inputs;
  if (activations.kind === "float" || !x) return null;
  const isSplit = activations.kind === "llm_int8";
  const mode = isSplit ? LLM_INT8_ROWS : activations;
  const format = weight?.kind === "weight" ? plan.weights[weight.weight].format : undefined;
  const columns = shapeOf(plan, x).at(-1) ?? 1;
  const form = format?.kind === "quantized" ? integerForm(format.layout, columns, mode) : null;
  return { mode, form, threshold: isSplit ? activations.threshold : null };
}

function shapeOf(plan: Plan, operand: PlanOperand): Shape {
  return operand.kind === "weight" ? plan.weights[operand.weight].shape : operand.shape;
}

/** Rows that some steps share, and during which of them. */
export class SharedRows implements Life {
  readonly bytes: number;
  readonly firstStep: number;
  readonly lastStep: number;
  /** From the scratch's start. */
  offset = 0;
  /** Whether a step that rounds them was encoded. */
  isMade = false;
  readonly rounding: RowRounding;
  readonly #shape: Shape;

  constructor({ rounding, steps }: SameInput<RowRounding>, shape: Shape) {
    this.firstStep = steps[0]!;
    this.lastStep = steps.at(-1)!;
    this.#shape = shape;
    this.rounding = rounding;
    this.bytes = this.#place(0).end;
  }

  /** Where they lie in scratch that begins at an address. */
  places(scratch: number): RoundedRows {
    return this.#place(scratch + this.offset).rows;
  }

  #place(start: number): { rows: RoundedRows; end: number } {
    let end = start;
    const take = (bytes: number) => {
      const address = end;
      end += aligned(bytes);
      return address;
    };
    const rows = placeRows(this.#shape, this.rounding, take);
    return { rows, end };
  }
}

/** All rounded rows of a plan. */
export class RowSharing {
  readonly #rows: readonly SharedRows[];
  readonly #byStep = new Map<number, SharedRows>();

  constructor(plan: Plan) {
    const groups = stepsBySameInput(plan, (step, x) => {
      const rounding = rowRounding(plan, step);
      return rounding && { rounding, key: [x, keyOf(rounding)] };
    });
    this.#rows = groups.map((group) => {
      const rows = new SharedRows(group, shapeOf(plan, group.x));
      for (const step of group.steps) this.#byStep.set(step, rows);
      return rows;
    });
    assignOffsets(this.#rows);
  }

  /** The rows that a step multiplies. */
  readBy(step: number): SharedRows | undefined {
    return this.#byStep.get(step);
  }

  /** Bytes of scratch that rows take during a step. */
  bytesDuring(step: number): number {
    const live = this.#rows.filter((rows) => rows.firstStep <= step && step <= rows.lastStep);
    return Math.max(0, ...live.map(({ offset, bytes }) => offset + bytes));
  }
}

/** What makes rows differ beside x. */
function keyOf({ mode, form, threshold }: RowRounding): unknown {
  return [codesKey(mode), form && [stripWords(form), form.hasOffset], threshold];
}

/** Room for rows wherever `take` has it. */
function placeRows(
  shape: Shape,
  { form, threshold }: RowRounding,
  take: (bytes: number) => number,
): RoundedRows {
  const columns = shape.at(-1) ?? 1;
  const rows = roundUp(elementCount(shape.slice(0, -1)), STRIP_ROWS);
  return {
    scales: take(rows * 4),
    zeros: take(rows * 4),
    values: form ? 0 : take(rows * columns * 4),
    strips: form ? placeStrips(take, rows, columns, form) : [0, 0, 0],
    marks: threshold === null ? 0 : take(columns * 4),
  };
}

/** Room for codes, what narrow sums begin at, and sums of runs, where a form has them. */
function placeStrips(
  take: (bytes: number) => number,
  rows: number,
  k: number,
  { isNarrow, hasOffset, run }: IntegerForm,
): number[] {
  const codes = take(rows * roundUp(k, PADDED_RUN) * MOST_CODE_BYTES);
  const sumBytes = rows * Math.ceil(k / Math.min(run, LEAST_BLOCK)) * 4;
  const starts = isNarrow ? take(sumBytes) : 0;
  return [codes, starts, hasOffset ? take(sumBytes) : 0];
}

function roundUp(value: number, unit: number): number {
  return Math.ceil(value / unit) * unit;
}
