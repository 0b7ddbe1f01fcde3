/** The Euler scheduler of flow matching: which noise levels a run visits, and the step between two of them. */

import { HalftoneError } from "../errors.ts";
import type { Config } from "../io/config.ts";
import type { TorchGenerator } from "../tensor/random.ts";
import { eulerStep, type NoiseLevels, renewNoise } from "./euler_step.ts";
import {
  flowMatchConfig,
  type FlowMatchEulerDiscreteSchedulerConfig,
  parseFlowMatchConfig,
  sigmaSpacing,
} from "./flow_match_config.ts";
import {
  betaSigmas,
  dynamicShift,
  exponentialSigmas,
  karrasSigmas,
  linspace,
  type Rounding,
  staticShift,
  stretchToTerminal,
} from "./sigma_schedules.ts";

export { calculateShift, type FlowMatchEulerDiscreteSchedulerConfig } from "./flow_match_config.ts";

const f32 = Math.fround;
const MAX_STEPS = 100_000;

/** What {@link FlowMatchEulerDiscreteScheduler.setTimesteps} is given; at least one of the first three. */
export interface SetTimestepsOptions {
  /** The number of steps; must equal the length of a given list. */
  numInferenceSteps?: number;
  /** Sigmas before shifting, from high to low. */
  sigmas?: ArrayLike<number>;
  /** Timesteps, used as given; without sigmas, the sigmas follow from them and are shifted. */
  timesteps?: ArrayLike<number>;
  /** The dynamic shift (see `calculateShift`); required with dynamic shifting. */
  mu?: number;
}

/** Further arguments of {@link FlowMatchEulerDiscreteScheduler.step}. */
export interface StepOptions {
  /** Where stochastic sampling takes its noise from. */
  generator?: TorchGenerator;
  /** A timestep for each token; the sample is then [tokens, channels]. */
  perTokenTimesteps?: ArrayLike<number>;
}

/**
 * `FlowMatchEulerDiscreteScheduler` of Diffusers: the same options, and the same float32 results bit for bit.
 *
 * ```ts
 * const scheduler = new FlowMatchEulerDiscreteScheduler({ shift: 3 });
 * scheduler.setTimesteps({ numInferenceSteps: 4 });
 * for (const timestep of scheduler.timesteps) latents = scheduler.step(velocity, timestep, latents);
 * ```
 */
export class FlowMatchEulerDiscreteScheduler {
  /** The options, with defaults filled in. */
  readonly config: Readonly<FlowMatchEulerDiscreteSchedulerConfig>;
  /** The model's timesteps, one per step: sigma * numTrainTimesteps. */
  timesteps: Float32Array;
  /** The noise levels: one per step and, after `setTimesteps`, the final one. */
  sigmas: Float32Array;
  #shift: number;
  #beginIndex: number | undefined;
  #stepIndex: number | undefined;
  readonly #sigmaMax: number;
  readonly #sigmaMin: number;

  /**
   * A scheduler with Diffusers' defaults for the options left out.
   *
   * @throws HalftoneError `invalid_config` for options that exclude each other
   */
  constructor(options: Partial<FlowMatchEulerDiscreteSchedulerConfig> = {}) {
    this.config = flowMatchConfig(options);
    this.#shift = this.config.shift;
    const count = this.config.numTrainTimesteps;
    const training = Array.from({ length: count }, (_, i) => f32((count - i) / count));
    const sigmas = this.config.useDynamicShifting
      ? training
      : staticShift(training, this.#shift, f32);
    this.sigmas = Float32Array.from(sigmas);
    this.timesteps = this.sigmas.map((sigma) => sigma * count);
    this.#sigmaMax = this.sigmas[0];
    this.#sigmaMin = this.sigmas[count - 1];
  }

  /** A scheduler from a parsed `scheduler_config.json`; see `parseFlowMatchConfig` for the errors. */
  static fromConfig(json: Config): FlowMatchEulerDiscreteScheduler {
    return new FlowMatchEulerDiscreteScheduler(parseFlowMatchConfig(json));
  }

  /** The static shift in use. */
  get shift(): number {
    return this.#shift;
  }

  /** Changes the static shift of the next `setTimesteps`. */
  setShift(shift: number): void {
    this.#shift = shift;
  }

  /** The step to begin with, once set; pipelines that start in mid-schedule set it. */
  get beginIndex(): number | undefined {
    return this.#beginIndex;
  }

  /** See {@link beginIndex}. */
  setBeginIndex(index = 0): void {
    this.#beginIndex = index;
  }

  /** The index of the coming step, once the first step was taken. */
  get stepIndex(): number | undefined {
    return this.#stepIndex;
  }

  /**
   * Fills `timesteps` and `sigmas` for a run and starts it anew.
   *
   * @throws HalftoneError `invalid_argument` for missing or contradicting arguments, or sigmas without a finite table
   */
  setTimesteps(options: SetTimestepsOptions): void {
    const count = checkedStepCount(options);
    if (this.config.useDynamicShifting && !Number.isFinite(options.mu)) {
      throw new HalftoneError("invalid_argument", "Cannot make the sigma table", {
        field: "mu",
        found: String(options.mu),
        expected: "a number, because the scheduler shifts dynamically",
      });
    }
    const given = options.sigmas !== undefined || options.timesteps !== undefined;
    const shifted = this.#shifted(this.#initialSigmas(options, count), options.mu, given);
    const sigmas = Float32Array.from(this.#respaced(shifted, count));
    checkFinite(sigmas);
    this.#setTables(sigmas, options.timesteps);
    this.#stepIndex = undefined;
    this.#beginIndex = undefined;
  }

  #initialSigmas({ sigmas, timesteps }: SetTimestepsOptions, count: number): number[] {
    const scale = this.config.numTrainTimesteps;
    if (sigmas) return Array.from(sigmas, f32);
    if (timesteps) return Array.from(timesteps, (t) => f32(f32(t) / scale));
    return linspace(this.#sigmaMax * scale, this.#sigmaMin * scale, count).map((t) => t / scale);
  }

  #shifted(sigmas: number[], mu: number | undefined, given: boolean): number[] {
    const { useDynamicShifting, timeShiftType, shiftTerminal } = this.config;
    const round: Rounding = given ? f32 : (x) => x;
    const shifted = useDynamicShifting
      ? dynamicShift(sigmas, mu!, timeShiftType, round)
      : staticShift(sigmas, this.#shift, round);
    return shiftTerminal ? stretchToTerminal(shifted, shiftTerminal, round) : shifted;
  }

  #respaced(sigmas: number[], count: number): number[] {
    const first = sigmas[0];
    const last = sigmas[count - 1];
    switch (sigmaSpacing(this.config)) {
      case "karras":
        return karrasSigmas(first, last, count);
      case "exponential":
        return exponentialSigmas(first, last, count);
      case "beta":
        return betaSigmas(first, last, count);
      case "linear":
        return sigmas;
    }
  }

  #setTables(sigmas: Float32Array, timesteps: ArrayLike<number> | undefined): void {
    const { numTrainTimesteps, invertSigmas } = this.config;
    const visited = invertSigmas ? sigmas.map((sigma) => 1 - sigma) : sigmas;
    this.timesteps = timesteps && !invertSigmas
      ? Float32Array.from(timesteps)
      : visited.map((sigma) => sigma * numTrainTimesteps);
    this.sigmas = Float32Array.of(...visited, invertSigmas ? 1 : 0);
  }

  /**
   * The step of a timestep: its first occurrence, or the second where it occurs twice (so that no sigma is skipped
   * when a run starts in mid-schedule).
   *
   * @throws HalftoneError `invalid_argument` for a value that is not in the schedule
   */
  indexForTimestep(timestep: number): number {
    const first = this.timesteps.indexOf(f32(timestep));
    if (first < 0) {
      throw new HalftoneError("invalid_argument", "Cannot find the timestep in the schedule", {
        field: "timestep",
        found: timestep,
        expected: "one of the scheduler's timesteps",
      });
    }
    const second = this.timesteps.indexOf(f32(timestep), first + 1);
    return second < 0 ? first : second;
  }

  /**
   * Moves `sample` one step along the model's velocity.
   *
   * @param modelOutput the velocity, as long as the sample
   * @param timestep one of `timesteps`; only the first step of a run looks at it
   * @returns the next sample (a new array)
   * @throws HalftoneError `invalid_argument` beyond the last step, or for stochastic sampling without a generator
   */
  step(
    modelOutput: Float32Array,
    timestep: number,
    sample: Float32Array,
    options: StepOptions = {},
  ): Float32Array {
    checkSameLength("modelOutput", modelOutput, sample);
    const index = this.#stepIndex ?? this.#beginIndex ?? this.indexForTimestep(timestep);
    if (index + 1 >= this.sigmas.length) throw pastTheEnd(index, this.sigmas.length - 1);
    const levels = options.perTokenTimesteps
      ? this.#levelsPerToken(options.perTokenTimesteps, sample.length)
      : { current: () => this.sigmas[index], next: () => this.sigmas[index + 1] };
    const result = this.config.stochasticSampling
      ? renewNoise(modelOutput, sample, levels, options.generator)
      : eulerStep(modelOutput, sample, levels, options.perTokenTimesteps !== undefined);
    this.#stepIndex = index + 1;
    return result;
  }

  /** The level of each token now, and the next lower one of the schedule. */
  #levelsPerToken(timesteps: ArrayLike<number>, sampleLength: number): NoiseLevels {
    const channels = sampleLength / timesteps.length;
    if (!Number.isInteger(channels)) {
      throw new HalftoneError("invalid_argument", "Cannot step with timesteps per token", {
        field: "perTokenTimesteps",
        found: `${timesteps.length} timesteps`,
        expected: `a divisor of ${sampleLength} values`,
      });
    }
    const current = Array.from(timesteps, (t) => f32(f32(t) / this.config.numTrainTimesteps));
    const next = current.map((level) => {
      const below = this.sigmas.filter((sigma) => sigma < f32(level - f32(1e-6)));
      return Math.max(0, ...below);
    });
    const token = (i: number) => Math.floor(i / channels);
    return { current: (i) => current[token(i)], next: (i) => next[token(i)] };
  }

  /**
   * The forward process: `sample` with as much noise as the run has at `timestep` (before the first step of a run
   * with a begin index: at that index; later: at the current step).
   */
  scaleNoise(sample: Float32Array, timestep: number, noise: Float32Array): Float32Array {
    checkSameLength("noise", noise, sample);
    const index = this.#beginIndex === undefined
      ? this.indexForTimestep(timestep)
      : this.#stepIndex ?? this.#beginIndex;
    const sigma = this.sigmas[index];
    const keep = f32(1 - sigma);
    return sample.map((x, i) => f32(sigma * noise[i]) + f32(keep * x));
  }
}

function checkedStepCount({ numInferenceSteps, sigmas, timesteps }: SetTimestepsOptions): number {
  const count = numInferenceSteps ?? sigmas?.length ?? timesteps?.length;
  if (count === undefined || !Number.isInteger(count) || count < 1 || count > MAX_STEPS) {
    throw new HalftoneError("invalid_argument", "Cannot make the sigma table", {
      field: "numInferenceSteps",
      found: String(count),
      expected: `an integer from 1 to ${MAX_STEPS}, or a list of sigmas or timesteps`,
    });
  }
  for (const [field, list] of Object.entries({ sigmas, timesteps })) {
    if (list === undefined || list.length === count) continue;
    throw new HalftoneError("invalid_argument", "Cannot make the sigma table", {
      field,
      found: `${list.length} values`,
      expected: `${count} values, one per step`,
    });
  }
  return count;
}

function checkFinite(sigmas: Float32Array): void {
  if (sigmas.every(Number.isFinite)) return;
  throw new HalftoneError("invalid_argument", "Cannot make the sigma table", {
    field: "sigmas",
    found: `[${sigmas.slice(0, 8).join(", ")}]`,
    expected: "finite values; these options have none for this number of steps",
  });
}

function checkSameLength(field: string, values: Float32Array, sample: Float32Array): void {
  if (values.length === sample.length) return;
  throw new HalftoneError("invalid_argument", "Cannot step", {
    field,
    found: `${values.length} values`,
    expected: `${sample.length} values, as in the sample`,
  });
}

function pastTheEnd(index: number, steps: number): HalftoneError {
  return new HalftoneError("invalid_argument", "Cannot step beyond the end of the schedule", {
    found: `step ${index + 1}`,
    expected: `at most ${steps} steps; call setTimesteps to start again`,
  });
}
