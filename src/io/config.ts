/**
 * Values of a config.json, checked: model files are untrusted, and a size taken from one decides how
 * much memory is asked for.
 */

import { HalftoneError } from "../errors.ts";

/** A parsed config.json: an object whose values are not yet trusted. */
export type Config = Readonly<Record<string, unknown>>;

/** Bounds and default of a number. */
export interface NumberRule {
  /** Used when the key is absent or null; without one the key is required. */
  readonly default?: number;
  /** The smallest value allowed. */
  readonly min?: number;
  /** The largest value allowed. */
  readonly max?: number;
  /** Whether fractions are refused; true unless said otherwise. */
  readonly integer?: boolean;
}

/** A number of the config. Throws `invalid_config` naming the key. */
export function configNumber(config: Config, key: string, rule: NumberRule = {}): number {
  const value = config[key] ?? rule.default;
  const { min = -Infinity, max = Infinity, integer = true } = rule;
  const isNumber = typeof value === "number" && Number.isFinite(value);
  if (isNumber && value >= min && value <= max && (!integer || Number.isSafeInteger(value))) {
    return value;
  }
  throw invalidConfig(key, config[key], `${integer ? "an integer" : "a number"}${range(min, max)}`);
}

/** A boolean of the config. Throws `invalid_config` naming the key. */
export function configBoolean(config: Config, key: string, fallback?: boolean): boolean {
  const value = config[key] ?? fallback;
  if (typeof value === "boolean") return value;
  throw invalidConfig(key, config[key], "true or false");
}

/** A string of the config, one of `choices` when given. Throws `invalid_config` naming the key. */
export function configString<Choice extends string = string>(
  config: Config,
  key: string,
  rule: { default?: Choice; choices?: readonly Choice[] } = {},
): Choice {
  const value = config[key] ?? rule.default;
  const allowed = typeof value === "string" &&
    (rule.choices === undefined || (rule.choices as readonly string[]).includes(value));
  if (allowed) return value as Choice;
  throw invalidConfig(key, config[key], rule.choices ? rule.choices.join(" | ") : "a string");
}

/** A list of numbers, each within the rule. Throws `invalid_config` naming the key. */
export function configNumbers(
  config: Config,
  key: string,
  rule: Omit<NumberRule, "default"> & { default?: readonly number[]; maxLength?: number } = {},
): number[] {
  const list = config[key] ?? rule.default;
  const { maxLength = 64 } = rule;
  if (!Array.isArray(list) || list.length > maxLength) {
    throw invalidConfig(key, config[key], `a list of at most ${maxLength} numbers`);
  }
  const item = { min: rule.min, max: rule.max, integer: rule.integer };
  return list.map((value, i) => configNumber({ [`${key}[${i}]`]: value }, `${key}[${i}]`, item));
}

/** A list of strings. Throws `invalid_config` naming the key. */
export function configStrings(
  config: Config,
  key: string,
  rule: { default?: readonly string[]; maxLength?: number } = {},
): string[] {
  const list = config[key] ?? rule.default;
  const { maxLength = 4096 } = rule;
  const allStrings = Array.isArray(list) && list.length <= maxLength &&
    list.every((value) => typeof value === "string");
  if (allStrings) return [...list];
  throw invalidConfig(key, config[key], `a list of at most ${maxLength} strings`);
}

/** The error for a key whose value cannot be meant. */
export function invalidConfig(key: string, found: unknown, expected: string): HalftoneError {
  return new HalftoneError("invalid_config", "Cannot use the config", {
    field: key,
    found: found === undefined ? "nothing" : found,
    expected,
    remedy: "The config.json of the component is damaged or belongs to another model.",
  });
}

function range(min: number, max: number): string {
  if (min === -Infinity && max === Infinity) return "";
  if (max === Infinity) return ` of at least ${min}`;
  return min === -Infinity ? ` of at most ${max}` : ` from ${min} to ${max}`;
}
