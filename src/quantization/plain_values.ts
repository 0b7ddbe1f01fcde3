/** Strings and numbers of JSON that nobody checked: `String` and `Number` throw for odd objects. */

import { JsonNumber } from "./python_json.ts";

/** A number as it is, NaN for everything else. */
export function plainNumber(value: unknown): number {
  if (value instanceof JsonNumber) return Number(value);
  return typeof value === "number" ? value : NaN;
}

/** A string as it is, everything else as JSON. */
export function plainText(value: unknown): string {
  return typeof value === "string" ? value : JSON.stringify(value) ?? "undefined";
}
