/**
 * What calibration finds: how far the inputs of linear layers reach. The first time a forward loop runs, the
 * largest |x| of each input is kept. For percentiles the loop runs again, and again, each time with some whole
 * inputs as outputs of the plans, as many as a bound allows: their values go into histograms.
 */

import type { Program } from "../backends/backend.ts";
import { HalftoneError } from "../errors.ts";
import type { Graph } from "../ops/graph.ts";
import {
  rowRanges,
  type WatchedInput,
  watchedWeights,
  watchLinearInputs,
  wholeInput,
} from "../ops/watch_inputs.ts";
import { ActivationHistogram } from "../quantization/activation_histogram.ts";
import { moduleOf } from "../quantization/quantizer.ts";
import { elementCount } from "../tensor/shape.ts";

/** How far the inputs of modules reach, by component and by the module's name. */
export type InputAmax = Readonly<Record<string, Readonly<Record<string, number>>>>;

/** How `FluxPipeline.calibrate` finds ranges; the names are those of ModelOpt's calibrators. */
export interface CalibrationOptions {
  /**
   * "max": the largest |x|. "percentile": what `percentile` percent of all |x| stay below, by a histogram of
   * 2048 bins or more; outliers are cut off. Default "max".
   */
  readonly method?: "max" | "percentile";
  /** For "percentile"; above 0, at most 100. Default 99.99. */
  readonly percentile?: number;
  /**
   * For "percentile": bytes of inputs that one run of the forward loop may keep, beside a single one, which is
   * kept whatever its size. The loop runs once more for each such share of a model's inputs. Default 256 MiB.
   */
  readonly histogramBytes?: number;
}

/** What a stage tells of the inputs of its linear layers. */
export interface InputWatcher {
  /** Adds what is to be read to a graph that was captured. */
  watch(graph: Graph): void;
  /** A program that tells after each run. */
  watched(program: Program): Program;
}

/** What was found of the input that some layers share. */
interface InputStatistics {
  amax: number;
  /** Of all plans the most. */
  bytes: number;
  histogram?: ActivationHistogram;
}

/** A calibration of the components of a pipeline. */
export class InputCalibration {
  readonly #options: Required<CalibrationOptions>;
  readonly #components = new Map<string, Map<string, InputStatistics>>();
  /** The inputs of each further run; null before the first has told which there are. */
  #shares: Set<InputStatistics>[] | null = null;

  /** Throws `invalid_argument`. */
  constructor(
    { method = "max", percentile = 99.99, histogramBytes = 2 ** 28 }: CalibrationOptions,
  ) {
    if (method !== "max" && method !== "percentile") {
      throw invalid("method", method, "max or percentile");
    }
    if (!(percentile > 0 && percentile <= 100)) {
      throw invalid("percentile", percentile, "above 0, at most 100");
    }
    if (!(histogramBytes > 0)) throw invalid("histogramBytes", histogramBytes, "a number of bytes");
    this.#options = { method, percentile, histogramBytes };
  }

  /** Goes over to the next run of the forward loop; false when none is needed. */
  next(): boolean {
    if (this.#options.method === "max") return false;
    if (this.#shares) this.#shares.shift();
    else this.#shares = this.#planShares();
    return this.#shares.length > 0;
  }

  /** The ranges found. */
  get amax(): InputAmax {
    return Object.fromEntries([...this.#components].map(([component, inputs]) => {
      const amax: Record<string, number> = {};
      for (const [weights, statistics] of inputs) {
        const range = this.#rangeOf(weights, statistics);
        for (const module of weights.split(",").map(moduleOf)) {
          amax[module] = Math.max(amax[module] ?? 0, range);
        }
      }
      return [component, amax];
    }));
  }

  /** The watcher of a stage; with `rowsAreRuns` each row of an input counts as a tensor of its own. */
  watcher(component: string, { rowsAreRuns }: { rowsAreRuns: boolean }): InputWatcher {
    if (!this.#components.has(component)) this.#components.set(component, new Map());
    const inputs = this.#components.get(component)!;
    return {
      watch: (graph) => watchLinearInputs(graph, (input) => this.#outputsOf(inputs, input)),
      watched: (program) => watched(program, () => this.#collect(inputs, program, rowsAreRuns)),
    };
  }

  #outputsOf(inputs: Map<string, InputStatistics>, input: WatchedInput) {
    const { weights, matrix } = input;
    if (this.#shares) return this.#isShared(inputs.get(weights)) ? wholeInput(input) : [];
    const bytes = 4 * elementCount(matrix.shape);
    const known = inputs.get(weights) ?? { amax: 0, bytes: 0 };
    inputs.set(weights, { ...known, bytes: Math.max(known.bytes, bytes) });
    return rowRanges(input);
  }

  #isShared(statistics: InputStatistics | undefined): boolean {
    return statistics !== undefined && this.#shares![0].has(statistics);
  }

  #collect(inputs: Map<string, InputStatistics>, program: Program, rowsAreRuns: boolean): void {
    for (const output of Object.keys(program.plan.outputs)) {
      const weights = watchedWeights(output);
      const statistics = inputs.get(weights);
      if (!statistics) continue;
      const found = program.read(output);
      const values = found.toFloat32();
      if (!this.#shares) widen(statistics, weights, values);
      else count(statistics, values, rowsAreRuns ? found.shape.at(-1)! : values.length);
    }
  }

  /** The inputs in their order, each share as large as the bound allows. Components run one at a time. */
  #planShares(): Set<InputStatistics>[] {
    const shares: Set<InputStatistics>[] = [];
    for (const inputs of this.#components.values()) {
      let [index, bytes] = [0, 0];
      for (const statistics of inputs.values()) {
        if (bytes > 0 && bytes + statistics.bytes > this.#options.histogramBytes) {
          [index, bytes] = [index + 1, 0];
        }
        bytes += statistics.bytes;
        (shares[index] ??= new Set()).add(statistics);
      }
    }
    return shares;
  }

  #rangeOf(weights: string, { amax, histogram }: InputStatistics): number {
    if (this.#options.method === "max") return amax;
    if (histogram) return histogram.percentile(this.#options.percentile);
    throw new HalftoneError("invalid_argument", "Cannot calibrate", {
      tensor: weights,
      found: "a forward loop that ran the layer the first time only",
      expected: "the same calls every time",
    });
  }
}

function watched(program: Program, collect: () => void): Program {
  return {
    plan: program.plan,
    write: (input, tensor) => program.write(input, tensor),
    read: (output) => program.read(output),
    release: () => program.release(),
    run: async (options) => {
      await program.run(options);
      collect();
    },
  };
}

function widen(statistics: InputStatistics, tensor: string, values: Float32Array): void {
  for (const value of values) {
    if (!Number.isFinite(value)) {
      throw new HalftoneError("unsupported", "Cannot calibrate by the input of a layer", {
        tensor,
        found: value,
        expected: "finite numbers",
      });
    }
    if (value > statistics.amax) statistics.amax = value;
  }
}

function count(statistics: InputStatistics, values: Float32Array, length: number): void {
  statistics.histogram ??= new ActivationHistogram();
  for (let start = 0; start < values.length; start += length) {
    statistics.histogram.collect(values.subarray(start, start + length));
  }
}

function invalid(field: string, found: unknown, expected: string): HalftoneError {
  return new HalftoneError("invalid_argument", "Cannot calibrate", { field, found, expected });
}
