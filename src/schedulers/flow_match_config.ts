/** The options of the flow-matching Euler scheduler, with the defaults of Diffusers. */

import { HalftoneError } from "../errors.ts";
import { type Config, configBoolean, configNumber, configString } from "../io/config.ts";

/** How the sigmas of a run are spread between the first and the last. */
export type SigmaSpacing = "linear" | "karras" | "exponential" | "beta";

/** The options of {@link FlowMatchEulerDiscreteScheduler}; names and meanings are Diffusers'. */
export interface FlowMatchEulerDiscreteSchedulerConfig {
  /** The number of steps of training; timesteps run up to it. */
  numTrainTimesteps: number;
  /** The static shift of the sigmas; ignored with dynamic shifting. */
  shift: number;
  /** Whether the shift depends on the picture's size, through `mu`. */
  useDynamicShifting: boolean;
  /** `mu` at `baseImageSeqLen` tokens. */
  baseShift: number;
  /** `mu` at `maxImageSeqLen` tokens. */
  maxShift: number;
  /** See `baseShift`. */
  baseImageSeqLen: number;
  /** See `maxShift`. */
  maxImageSeqLen: number;
  /** Whether sigmas run upwards, from 1 - sigma to 1 (Mochi). */
  invertSigmas: boolean;
  /** Where the last sigma is stretched to; null or 0 for no stretching. */
  shiftTerminal: number | null;
  /** Spread sigmas as Karras et al. 2022; excludes the next two. */
  useKarrasSigmas: boolean;
  /** Spread sigmas evenly in the logarithm. */
  useExponentialSigmas: boolean;
  /** Spread sigmas by the quantiles of Beta(0.6, 0.6). */
  useBetaSigmas: boolean;
  /** The formula of the dynamic shift. */
  timeShiftType: "exponential" | "linear";
  /** Whether each step renews the noise, from a generator. */
  stochasticSampling: boolean;
}

const CLASS_NAME = "FlowMatchEulerDiscreteScheduler";

/**
 * Reads a parsed `scheduler_config.json`; absent keys take Diffusers' defaults, keys of other classes are ignored.
 *
 * @throws HalftoneError `unsupported` for another scheduler, `invalid_config` for a value that cannot be meant
 */
export function parseFlowMatchConfig(json: Config): FlowMatchEulerDiscreteSchedulerConfig {
  const className = configString(json, "_class_name", { default: CLASS_NAME });
  if (className !== CLASS_NAME) {
    throw new HalftoneError("unsupported", "Cannot use this scheduler", {
      field: "_class_name",
      found: className,
      expected: CLASS_NAME,
    });
  }
  return checkedFlowMatchConfig({
    numTrainTimesteps: configNumber(json, "num_train_timesteps", {
      default: 1000,
      min: 1,
      max: 1_000_000,
    }),
    shift: number(json, "shift", 1),
    useDynamicShifting: configBoolean(json, "use_dynamic_shifting", false),
    baseShift: number(json, "base_shift", 0.5),
    maxShift: number(json, "max_shift", 1.15),
    baseImageSeqLen: configNumber(json, "base_image_seq_len", { default: 256 }),
    maxImageSeqLen: configNumber(json, "max_image_seq_len", { default: 4096 }),
    invertSigmas: configBoolean(json, "invert_sigmas", false),
    shiftTerminal: json.shift_terminal == null ? null : number(json, "shift_terminal"),
    useKarrasSigmas: configBoolean(json, "use_karras_sigmas", false),
    useExponentialSigmas: configBoolean(json, "use_exponential_sigmas", false),
    useBetaSigmas: configBoolean(json, "use_beta_sigmas", false),
    timeShiftType: configString(json, "time_shift_type", {
      default: "exponential",
      choices: ["exponential", "linear"],
    }),
    stochasticSampling: configBoolean(json, "stochastic_sampling", false),
  });
}

function number(json: Config, key: string, fallback?: number): number {
  return configNumber(json, key, { default: fallback, integer: false });
}

/** The defaults of Diffusers with `options` over them, checked as {@link parseFlowMatchConfig} checks. */
export function flowMatchConfig(
  options: Partial<FlowMatchEulerDiscreteSchedulerConfig> = {},
): FlowMatchEulerDiscreteSchedulerConfig {
  return checkedFlowMatchConfig({ ...parseFlowMatchConfig({}), ...options });
}

function checkedFlowMatchConfig(
  config: FlowMatchEulerDiscreteSchedulerConfig,
): FlowMatchEulerDiscreteSchedulerConfig {
  const chosen = [config.useKarrasSigmas, config.useExponentialSigmas, config.useBetaSigmas];
  if (chosen.filter(Boolean).length > 1) {
    throw new HalftoneError("invalid_config", "Cannot combine sigma spacings", {
      field: "use_karras_sigmas, use_exponential_sigmas, use_beta_sigmas",
      expected: "at most one of them true",
    });
  }
  if (config.shiftTerminal === 1) {
    throw new HalftoneError("invalid_config", "Cannot stretch the sigmas to a last sigma of 1", {
      field: "shift_terminal",
      found: 1,
      expected: "a number below 1",
    });
  }
  return config;
}

/** Which of the mutually exclusive spacings a config asks for. */
export function sigmaSpacing(config: FlowMatchEulerDiscreteSchedulerConfig): SigmaSpacing {
  if (config.useKarrasSigmas) return "karras";
  if (config.useExponentialSigmas) return "exponential";
  return config.useBetaSigmas ? "beta" : "linear";
}

/**
 * The dynamic shift `mu` of a picture of `imageSeqLen` tokens: linear between the two anchors of the config, and
 * beyond them.
 */
export function calculateShift(
  imageSeqLen: number,
  config: Pick<
    FlowMatchEulerDiscreteSchedulerConfig,
    "baseImageSeqLen" | "maxImageSeqLen" | "baseShift" | "maxShift"
  >,
): number {
  const { baseImageSeqLen, maxImageSeqLen, baseShift, maxShift } = config;
  const slope = (maxShift - baseShift) / (maxImageSeqLen - baseImageSeqLen);
  return imageSeqLen * slope + (baseShift - slope * baseImageSeqLen);
}
