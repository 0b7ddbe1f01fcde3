/** The region of a program in which steps keep what they round for each other: codes, rows and heads of 16 bits. */

import { assignOffsets, type Life } from "../../plan/place.ts";
import type { Plan } from "../../plan/plan.ts";
import { BufferHistory } from "./buffer_history.ts";
import type { CodePlaces } from "./code_places.ts";
import type { Products } from "./cuda_step.ts";
import { findNarrowHeads, type NarrowHeads } from "./narrow_heads.ts";
import { findSharedRows, type SharedRows } from "./shared_rows.ts";

/** What lies there, by the steps that have to do with it. */
export class RoundedRegion {
  readonly bytes: number;
  readonly #address: number;
  readonly #rows: readonly SharedRows[];
  readonly #heads: readonly NarrowHeads[];

  /** The region of a plan, beginning at an address. */
  constructor(plan: Plan, products: Products, address: number) {
    const history = new BufferHistory(plan);
    this.#address = address;
    this.#rows = findSharedRows(plan, history, products);
    this.#heads = findNarrowHeads(plan, history, products);
    this.bytes = assignOffsets([...this.#rows, ...this.#heads]);
  }

  /** What a linear layer takes as its activations, where it is not alone with it. */
  rowsReadBy(step: number): SharedRows | undefined {
    return this.#rows.find(({ layers }) => layers.includes(step));
  }

  /** What a step's output becomes. */
  rowsWrittenBy(step: number): SharedRows | undefined {
    return this.#rows.find(({ producer }) => producer === step);
  }

  /** Where codes lie. */
  placesOf(codes: SharedRows): CodePlaces {
    return codes.places(this.#address);
  }

  /** The heads that attention reads as an operand, where they are made in 16 bits. */
  headsReadBy(step: number, operand: number): NarrowHeads | undefined {
    return this.#heads.find((heads) => heads.reader === step && heads.operand === operand);
  }

  /** The heads that a step's output is a part of. */
  headsWrittenBy(step: number): NarrowHeads | undefined {
    return this.#heads.find(({ firstRows }) => firstRows.has(step));
  }

  /** Where something of the region lies. */
  addressOf({ offset }: Life): number {
    return this.#address + offset;
  }
}
