/** Cutting token ids to the model's length and filling them up. */

import { HalftoneError } from "../errors.ts";

/** How a text becomes ids. */
export interface EncodeOptions {
  /** The most ids, the special ones included; 512 for T5 and 77 for CLIP in Flux. */
  maxLength: number;
  /** Whether to fill up to `maxLength` with the pad token ("max_length", the default) or not at all. */
  padding?: "max_length" | "none";
}

/** The ids of a text. */
export interface Encoding {
  /** The ids, cut and filled up. */
  ids: Int32Array;
  /** How many of the ids are not padding. */
  length: number;
  /** How many ids of the text were cut off. */
  truncated: number;
  /** The text that was cut off, as the ids decode; empty if none. */
  truncatedText: string;
}

/** What stands around and after the ids of a text. */
export interface Frame {
  /** Ids before the text. */
  before: readonly number[];
  /** Ids after the text, also when it was cut. */
  after: readonly number[];
  /** The id that fills up. */
  pad: number;
}

/**
 * Cuts `ids` so that they fit with the frame, and pads.
 *
 * @throws HalftoneError `invalid_argument` if `maxLength` has no room for the frame
 */
export function frameIds(
  ids: readonly number[],
  frame: Frame,
  { maxLength, padding = "max_length" }: EncodeOptions,
  decode: (ids: readonly number[]) => string,
): Encoding {
  const room = maxLength - frame.before.length - frame.after.length;
  if (!Number.isInteger(maxLength) || room < 0 || maxLength > 2 ** 20) {
    throw new HalftoneError("invalid_argument", "Cannot tokenize", {
      field: "maxLength",
      found: maxLength,
      expected: `an integer from ${maxLength - room} to ${2 ** 20}`,
    });
  }
  const kept = [...frame.before, ...ids.slice(0, room), ...frame.after];
  const filled = new Int32Array(padding === "max_length" ? maxLength : kept.length).fill(frame.pad);
  filled.set(kept);
  const cut = ids.slice(room);
  return {
    ids: filled,
    length: kept.length,
    truncated: cut.length,
    truncatedText: cut.length > 0 ? decode(cut) : "",
  };
}
