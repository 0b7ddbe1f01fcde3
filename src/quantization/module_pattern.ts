/**
 * Regular expressions over module names, from configs that nobody checked. An engine that backtracks can
 * take longer than anybody waits for a pattern of ten characters, so only patterns are taken whose
 * choices cannot multiply far.
 */

import { HalftoneError } from "../errors.ts";

/** The most characters of a pattern; and of a module name, above which nothing matches. */
const LENGTH_LIMIT = 256;
/** The most ways a match may be tried at one place: two repetitions and an option. */
const WAYS_LIMIT = 2 * LENGTH_LIMIT ** 2;

/** A pattern that was checked. */
export class ModulePattern {
  readonly #expression: RegExp;

  /**
   * Compiles `text`, between `before` and `after` which are ours. Throws `quantization_config` naming the
   * field for what is no pattern, or one that could take long.
   */
  constructor(text: unknown, field: string, before = "", after = "") {
    if (typeof text !== "string" || text.length > LENGTH_LIMIT) throw unusable(text, field);
    if (waysOf(text) > WAYS_LIMIT) throw unusable(text, field);
    try {
      this.#expression = new RegExp(`${before}${text}${after}`);
    } catch (cause) {
      throw unusable(text, field, cause);
    }
  }

  /** Whether the pattern is found in a module's dotted name. */
  test(module: string): boolean {
    return module.length <= LENGTH_LIMIT && this.#expression.test(module);
  }
}

/** Escapes, classes, the openings of groups, repetitions by numbers, and single characters. */
const TOKEN = /\\[^]|\[(?:\\[^]|[^\]\\])*\]|\(\?:|\(\?|\{[\d,]*\}|[^]/g;

/** How many ways there are to match at one place, at most; infinite for what may repeat a group. */
function waysOf(pattern: string): number {
  const openBars: number[] = [];
  let ways = 1;
  let last = "";
  for (const [token] of pattern.matchAll(TOKEN)) {
    if (token === "(?" || /^\\[1-9k]/.test(token)) return Infinity; // looks around or back
    if (token.startsWith("(")) openBars.push(0);
    // Alternatives of the whole pattern are tried one after the other; those of groups multiply.
    else if (token === "|" && openBars.length > 0) openBars[openBars.length - 1]++;
    else if (token === ")") ways *= 1 + (openBars.pop() ?? 0);
    else if (token === "?") ways *= /^[*+?{]/.test(last) ? 1 : 2;
    else if (/^(?:[*+]|\{.)/.test(token)) ways *= last === ")" ? Infinity : LENGTH_LIMIT;
    last = token;
  }
  return ways;
}

function unusable(found: unknown, field: string, cause?: unknown): HalftoneError {
  const detail = {
    field,
    found,
    expected: "a module name, or a short regular expression that repeats no group",
  };
  return new HalftoneError("quantization_config", "Cannot use a module pattern", detail, cause);
}
