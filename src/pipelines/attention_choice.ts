/** A caller's choice of how the transformer's attention computes. */

import { invalidOption } from "../errors.ts";

/**
 * "float"; or "int8": queries and keys are rounded to int8 with a scale per token and head, keys less their mean
 * (as SageAttention does), and multiplied in integers; softmax and values stay float.
 */
export type AttentionChoice = "float" | "int8";

/** All choices. */
export const ATTENTION_CHOICES: readonly AttentionChoice[] = ["float", "int8"];

/** Throws `invalid_argument` for anything but a choice or nothing. */
export function checkAttention(value: unknown): void {
  if (value === undefined || ATTENTION_CHOICES.some((choice) => choice === value)) return;
  throw invalidOption("attention", value, ATTENTION_CHOICES.join(", "));
}
