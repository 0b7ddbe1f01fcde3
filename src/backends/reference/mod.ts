/**
 * The reference backend: the op table in plain TypeScript, the semantics of record. Sums are in
 * float64, results rounded once to float32. Slow and obvious; every other backend is tested
 * against the same cases.
 */

import { HalftoneError } from "../../errors.ts";
import { OP_TABLE, type OpName } from "../../ops/op_table.ts";
import type { Plan, PlanWeight } from "../../plan/plan.ts";
import type {
  Backend,
  BackendLimits,
  LoadOptions,
  MemoryUse,
  Program,
  WeightSet,
  WeightSource,
} from "../backend.ts";
import { MemoryLedger } from "../memory_ledger.ts";
import { type ProgramHost, ReferenceProgram } from "./program.ts";
import { planScratch } from "./scratch.ts";
import { loadReferenceWeights, ReferenceWeights } from "./weights.ts";

/** Options of the reference backend. */
export interface ReferenceOptions {
  /** False leaves out the optional ops, so that plans fall back on their decompositions. */
  readonly fused?: boolean;
}

/** Makes a reference backend; it needs nothing of the machine. */
export function createReferenceBackend(options: ReferenceOptions = {}): Backend {
  return new ReferenceBackend(options.fused ?? true);
}

class ReferenceBackend implements Backend, ProgramHost {
  readonly name = "reference";
  /** Host memory is all there is. */
  readonly limits: BackendLimits = { residentWeightBytes: Infinity, arenaBytes: Infinity };
  readonly ledger: MemoryLedger = new MemoryLedger();
  readonly #fused: boolean;
  readonly #weightSets = new Set<ReferenceWeights>();
  readonly #programs = new Set<ReferenceProgram>();
  readonly #runs = new Set<Promise<void>>();
  #isClosed = false;

  constructor(fused: boolean) {
    this.#fused = fused;
  }

  supports(op: OpName): boolean {
    return this.#fused || OP_TABLE[op].required;
  }

  scratchBytes(plan: Plan): number {
    return planScratch(plan);
  }

  async loadWeights(
    weights: readonly PlanWeight[],
    source: WeightSource,
    options: LoadOptions = {},
  ): Promise<WeightSet> {
    this.checkOpen();
    const set = await loadReferenceWeights(weights, source, this.ledger, options);
    this.#weightSets.add(set);
    return set;
  }

  // deno-lint-ignore require-await -- so that errors reject instead of being thrown
  async compile(plan: Plan, weights: WeightSet): Promise<Program> {
    this.checkOpen();
    if (!(weights instanceof ReferenceWeights)) {
      throw new HalftoneError("invalid_argument", "Cannot use weights of another backend");
    }
    const program = new ReferenceProgram(plan, weights, this);
    this.#programs.add(program);
    return program;
  }

  memory(): MemoryUse {
    return this.ledger.use();
  }

  async close(): Promise<void> {
    this.#isClosed = true;
    await Promise.allSettled(this.#runs);
    for (const program of this.#programs) program.release();
    for (const set of this.#weightSets) await set.release();
    this.#weightSets.clear();
  }

  checkOpen(): void {
    if (this.#isClosed) throw new HalftoneError("closed", "Cannot use a closed backend");
  }

  async track(run: Promise<void>): Promise<void> {
    this.#runs.add(run);
    try {
      await run;
    } finally {
      this.#runs.delete(run);
    }
  }

  forget(program: ReferenceProgram): void {
    this.#programs.delete(program);
  }
}
