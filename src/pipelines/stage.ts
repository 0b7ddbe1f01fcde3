/** A stage of a pipeline: one forward of one component, its plans by size and its weights. */

import type { Backend, Program, WeightSet } from "../backends/backend.ts";
import { HalftoneError } from "../errors.ts";
import { Graph } from "../ops/graph.ts";
import { buildPlan } from "../plan/build.ts";
import type { Plan } from "../plan/plan.ts";
import type { Component } from "./component.ts";
import type { LoadProgress } from "./flux_options.ts";
import type { InputWatcher } from "./input_calibration.ts";
import type { StageClock } from "./stage_clock.ts";

/** Plans kept per stage; a plan is small, but the tables of its positions are not. */
const PLANS_KEPT = 4;

/** Sizes a stage can be captured at, as plain data. */
export type StageSizes = Readonly<Record<string, number>>;

/** How a stage is used. */
export interface StageUse {
  readonly signal?: AbortSignal;
  readonly onProgress?: (progress: LoadProgress) => void;
}

/** One forward of a component. */
export class Stage<Sizes extends StageSizes = StageSizes> {
  /** Such as "transformer.denoise". */
  readonly name: string;
  readonly component: Component;
  /** Whether the weights stay on the backend after a use. */
  readonly keepsWeights: boolean;
  readonly #backend: Backend;
  readonly #clock: StageClock;
  readonly #capture: (graph: Graph, sizes: Sizes) => void;
  readonly #plans = new Map<string, Plan>();
  #weights: WeightSet | undefined;
  /**
   * Whether the weights stay outside the backend's own memory, as `placeWeights` decides for a whole
   * pipeline; else the backend decides by what fits.
   */
  streamsWeights: boolean | undefined = undefined;
  /** Told of linear layers' inputs after each run; to be set before anything is planned. */
  watcher: InputWatcher | undefined = undefined;
  /** Stages that come later in a run: they make room when this one loads what it will not keep. */
  later: readonly Stage[] = [];

  constructor(options: {
    name: string;
    component: Component;
    keepsWeights: boolean;
    backend: Backend;
    clock: StageClock;
    capture: (graph: Graph, sizes: Sizes) => void;
  }) {
    this.name = options.name;
    this.component = options.component;
    this.keepsWeights = options.keepsWeights;
    this.#backend = options.backend;
    this.#clock = options.clock;
    this.#capture = options.capture;
  }

  /** The plan at these sizes; captured once. Throws what is wrong with the checkpoint. */
  plan(sizes: Sizes): Plan {
    const key = JSON.stringify(sizes);
    const plan = this.#plans.get(key) ?? this.#clock.measureSync("plan", () => this.#build(sizes));
    this.#plans.delete(key); // the one used last goes to the end
    this.#plans.set(key, plan);
    if (this.#plans.size > PLANS_KEPT) this.#plans.delete(this.#plans.keys().next().value!);
    return plan;
  }

  #build(sizes: Sizes): Plan {
    const graph = new Graph(this.name, this.component.weights.catalog);
    try {
      this.#capture(graph, sizes);
    } catch (error) {
      if (!(error instanceof HalftoneError) || error.detail.file) throw error;
      throw error.inFile(this.component.file ?? this.component.path);
    }
    this.watcher?.watch(graph);
    return buildPlan(graph, { supports: (op) => this.#backend.supports(op) });
  }

  /** Puts the weights onto the backend, unless they are there. */
  async load(sizes: Sizes, use: StageUse = {}): Promise<void> {
    if (this.#weights) return;
    const { weights } = this.plan(sizes);
    const { source } = this.component.weights;
    const { signal, onProgress } = use;
    // Else a second run would need more memory than the first, and than was planned.
    if (!this.keepsWeights) { for (const stage of this.later) await stage.release(); }
    const report = (done: number, total: number): void =>
      onProgress?.({ stage: this.name, done, total });
    this.#weights = await this.#clock.measure(
      "load",
      () =>
        this.#backend.loadWeights(weights, source, {
          signal,
          streamed: this.streamsWeights,
          onProgress: report,
        }),
    );
  }

  /** Runs an action with a program of these sizes; frees its arena, and weights that need not stay. */
  async run<Result>(
    sizes: Sizes,
    use: StageUse,
    action: (program: Program) => Promise<Result>,
  ): Promise<Result> {
    const plan = this.plan(sizes);
    await this.load(sizes, use);
    const program = await this.#backend.compile(plan, this.#weights!);
    try {
      return await action(this.watcher?.watched(program) ?? program);
    } finally {
      program.release();
      if (!this.keepsWeights) await this.release();
    }
  }

  /** Takes the weights off the backend and forgets the plans, which were made for other formats. */
  async reset(): Promise<void> {
    await this.release();
    this.#plans.clear();
  }

  /** Takes the weights off the backend. */
  async release(): Promise<void> {
    const weights = this.#weights;
    this.#weights = undefined;
    await weights?.release();
  }
}
