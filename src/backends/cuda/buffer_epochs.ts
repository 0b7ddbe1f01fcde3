/** What a buffer holds from one filling to the next: rectangles that steps write side by side, and who reads them. */

import type { ActivationOperand, Plan } from "../../plan/plan.ts";
import { addressView, collapsed } from "../operand_view.ts";

/** A part of a matrix. */
export interface Rectangle {
  readonly row: number;
  readonly column: number;
  readonly rows: number;
  readonly columns: number;
}

/** A rectangle that a step writes, or that it reads as an operand. */
export interface Access extends Rectangle {
  readonly step: number;
  /** Its number among the step's inputs; -1 of the output. */
  readonly operand: number;
}

/** A matrix that some steps write, no two of them the same of it, and others read when all of it is there. */
export interface Epoch {
  readonly buffer: number;
  readonly rows: number;
  readonly columns: number;
  readonly writes: readonly Access[];
  readonly reads: readonly Access[];
}

/** Numbers of a buffer in rows; in elements from the buffer's start. The stride of one row is any. */
interface Lines {
  readonly first: number;
  readonly stride: number;
  readonly rows: number;
  readonly columns: number;
}

interface Touch {
  readonly step: number;
  readonly operand: number;
  /** Null where they are no matrix. */
  readonly lines: Lines | null;
}

interface Filling {
  readonly writes: Touch[];
  readonly reads: Touch[];
  /** Whether something was read before the last write. */
  isReadEarly: boolean;
}

/** The epochs of a plan's temporaries and outputs that are matrices from end to end. */
export function findEpochs(plan: Plan): Epoch[] {
  return fillingsOf(plan).flatMap((fillings, buffer) => {
    const epochs = fillings.map((filling) => epochOf(filling, buffer));
    return epochs.flatMap(({ epoch, first }, index) => {
      const next = epochs[index + 1];
      // What follows must take the whole place, or somebody might still read of what was there.
      const isOver = !next || epoch && next.epoch && next.first <= first &&
          end(next) >= end({ epoch, first });
      return epoch && isOver ? [epoch] : [];
    });
  });
}

interface PlacedEpoch {
  readonly epoch: Epoch | null;
  /** Its first element in the buffer. */
  readonly first: number;
}

function end({ epoch, first }: PlacedEpoch): number {
  return first + (epoch ? epoch.rows * epoch.columns : 0);
}

/** The fillings of each buffer in their order: a new one begins with a write over what is written. */
function fillingsOf(plan: Plan): Filling[][] {
  const fillings: Filling[][] = plan.buffers.map(() => []);
  plan.steps.forEach(({ inputs, output }, step) => {
    inputs.forEach((input, operand) => {
      if (input?.kind !== "activation") return;
      fillings[input.buffer]!.at(-1)?.reads.push({ step, operand, lines: linesOf(plan, input) });
    });
    const lines = linesOf(plan, output);
    const known = fillings[output.buffer]!;
    const current = known.at(-1);
    const write = { step, operand: -1, lines };
    if (!current || current.writes.some((other) => meet(other.lines, lines))) {
      known.push({ writes: [write], reads: [], isReadEarly: false });
      return;
    }
    current.writes.push(write);
    current.isReadEarly ||= current.reads.length > 0;
  });
  return fillings;
}

/** A matrix view's lines; null where an operand is none. */
function linesOf(plan: Plan, operand: ActivationOperand): Lines | null {
  const matrix = collapsed(addressView(plan, operand, 0));
  if (typeof matrix === "string" || operand.shape.includes(0)) return null;
  const { rows, columns, stride } = matrix;
  return { first: operand.offset, rows, columns, stride };
}

/** Whether two may have a number in common: where their lines do not lie in one grid, they may. */
function meet(a: Lines | null, b: Lines | null): boolean {
  if (a === null || b === null) return true;
  const first = Math.min(a.first, b.first), stride = strideOf([a, b]);
  const [one, other] = [a, b].map((lines) => rectangleOf(lines, first, stride));
  if (!one || !other) return true;
  return one.row < other.row + other.rows && other.row < one.row + one.rows &&
    one.column < other.column + other.columns && other.column < one.column + one.columns;
}

/** The stride of lines of which some are only one. */
function strideOf(all: readonly Lines[]): number {
  return all.find(({ rows }) => rows > 1)?.stride ?? Math.max(...all.map(({ columns }) => columns));
}

/** Where lines lie in a matrix of a stride that begins at an element; null where they do not fit its lines. */
function rectangleOf(lines: Lines, first: number, stride: number): Rectangle | null {
  const { rows, columns } = lines;
  const from = lines.first - first;
  const row = Math.floor(from / stride), column = from % stride;
  const fits = from >= 0 && (rows === 1 || lines.stride === stride) && column + columns <= stride;
  return fits ? { row, column, rows, columns } : null;
}

/** The matrix of a filling whose writes leave nothing out and whose reads come after them, within it. */
function epochOf({ writes, reads, isReadEarly }: Filling, buffer: number): PlacedEpoch {
  const lines = writes.flatMap((write) => write.lines ?? []);
  const first = Math.min(...lines.map((line) => line.first));
  const none = { epoch: null, first };
  if (isReadEarly || lines.length < writes.length) return none;
  const stride = strideOf(lines);
  const written = writes.flatMap((touch) => accessOf(touch, first, stride) ?? []);
  const rows = Math.max(...written.map((part) => part.row + part.rows));
  const columns = Math.max(...written.map((part) => part.column + part.columns));
  const area = written.reduce((sum, part) => sum + part.rows * part.columns, 0);
  const isWhole = written.length === writes.length && columns === stride &&
    area === rows * columns;
  const read = reads.flatMap((touch) => accessOf(touch, first, stride) ?? []);
  const isWithin = read.length === reads.length &&
    read.every((part) => part.row + part.rows <= rows);
  if (!isWhole || !isWithin) return none;
  return { epoch: { buffer, rows, columns, writes: written, reads: read }, first };
}

function accessOf({ step, operand, lines }: Touch, first: number, stride: number): Access | null {
  const rectangle = lines && rectangleOf(lines, first, stride);
  return rectangle && { step, operand, ...rectangle };
}
