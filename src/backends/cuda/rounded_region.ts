/** The region of a program in which steps keep what they round for each other: codes, and matrices of 16 bits. */

import { assignOffsets, type Life } from "../../plan/place.ts";
import type { Plan } from "../../plan/plan.ts";
import { askedAttention } from "./asked_attention.ts";
import type { Access } from "./buffer_epochs.ts";
import { BufferHistory } from "./buffer_history.ts";
import type { CodePlaces } from "./code_places.ts";
import type { Products } from "./cuda_step.ts";
import type { AttentionProblem } from "./dnn_problem.ts";
import { OPERAND_BYTES } from "./matmul_precision.ts";
import { findNarrowBlocks, type NarrowBlock } from "./narrow_blocks.ts";
import type { PlainRows } from "./plain_rows.ts";
import { findSharedRows, type SharedRows } from "./shared_rows.ts";

/** A step's output in 16 bits. */
export interface RowsWritten extends PlainRows {
  /** Whether it is wanted as float32 too. */
  readonly keepsFloats: boolean;
}

/** What lies there, by the steps that have to do with it. */
export class RoundedRegion {
  readonly bytes: number;
  readonly #plan: Plan;
  readonly #products: Products;
  readonly #address: number;
  readonly #shared: readonly SharedRows[];
  readonly #blocks: readonly NarrowBlock[];
  readonly #writes = new Map<number, [NarrowBlock, Access]>();
  readonly #reads = new Map<string, [NarrowBlock, Access]>();

  /** The region of a plan, beginning at an address. */
  constructor(plan: Plan, products: Products, address: number) {
    this.#plan = plan;
    this.#products = products;
    this.#address = address;
    this.#blocks = findNarrowBlocks(plan, products);
    for (const block of this.#blocks) {
      for (const write of block.writes) this.#writes.set(write.step, [block, write]);
      for (const read of block.reads) this.#reads.set(readKey(read), [block, read]);
    }
    const isApart = (step: number) => !this.isReadNarrow(step, 0);
    this.#shared = findSharedRows(plan, new BufferHistory(plan), products, isApart);
    this.bytes = assignOffsets([...this.#shared, ...this.#blocks]);
  }

  /** What a linear layer takes as its activations, where it is not alone with it and must round it. */
  sharedBy(step: number): SharedRows | undefined {
    return this.#shared.find(({ layers }) => layers.includes(step));
  }

  /** The codes that a step's output becomes. */
  codesWrittenBy(step: number): SharedRows | undefined {
    return this.#shared.find(({ producer }) => producer === step);
  }

  /** Where codes lie. */
  placesOf(codes: SharedRows): CodePlaces {
    return codes.places(this.#address);
  }

  /** Where something of the region lies. */
  addressOf({ offset }: Life): number {
    return this.#address + offset;
  }

  /** Whether a step's operand is there in 16 bits, unless a library refuses the attention that reads it. */
  isReadNarrow(step: number, operand: number): boolean {
    return this.#reads.has(readKey({ step, operand }));
  }

  /** Whether a step's output is to be there in 16 bits, unless a library refuses the attention that reads it. */
  isWrittenNarrow(step: number): boolean {
    return this.#writes.has(step);
  }

  /** A step's operand in 16 bits. */
  rowsRead(step: number, operand: number): PlainRows | undefined {
    const [block, read] = this.#reads.get(readKey({ step, operand })) ?? [];
    return block && read && this.#isUsed(block) ? this.#part(block, read) : undefined;
  }

  /** Where a step's output goes in 16 bits. */
  rowsWritten(step: number): RowsWritten | undefined {
    const [block, write] = this.#writes.get(step) ?? [];
    if (!block || !write || !this.#isUsed(block)) return undefined;
    return { ...this.#part(block, write), keepsFloats: block.keepsFloats };
  }

  /** The attention of a step as the library is asked for it; null where it is no such one. */
  attentionOf(step: number): AttentionProblem | null {
    const asked = askedAttention(this.#plan, this.#plan.steps[step]!, this.#products);
    const [block] = this.#writes.get(step) ?? [];
    return asked && block ? { ...asked, outputStride: block.columns } : asked;
  }

  #isUsed({ attention }: NarrowBlock): boolean {
    const problem = attention === null ? null : this.attentionOf(attention);
    return problem === null || Boolean(this.#products.dnn?.prepare(problem));
  }

  #part(block: NarrowBlock, { row, column, rows, columns }: Access): PlainRows {
    const { type, columns: stride } = block;
    const address = this.addressOf(block) + OPERAND_BYTES[type] * (row * stride + column);
    return { address, rows, columns, stride, type };
  }
}

function readKey({ step, operand }: { readonly step: number; readonly operand: number }): string {
  return `${step}/${operand}`;
}
