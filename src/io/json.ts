/**
 * JSON as untrusted input: `JSON.parse` keeps the last of two equal keys and says nothing, and turns
 * `1.0` and `1e3` into integers. Both are refused here, because two readers of one file could then
 * disagree about what it says.
 */

/** What is wrong with a JSON text. */
export class JsonFault extends Error {}

/** Restrictions beyond the grammar. */
export interface JsonRules {
  /** Whether numbers must be plain non-negative integers below 2^53. */
  readonly plainIntegers?: boolean;
  /** How deep objects and arrays may nest. */
  readonly maxDepth?: number;
}

/** Parses JSON without duplicate keys. Throws `JsonFault` saying what is wrong and where. */
export function parseStrictJson(text: string, rules: JsonRules = {}): unknown {
  // The depth is bounded before JSON.parse sees the text: some engines recurse in it.
  checkDepth(text, rules.maxDepth ?? 64);
  const value = parse(text);
  new KeyScan(text, rules.plainIntegers ?? false).run();
  return value;
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new JsonFault(error instanceof Error ? error.message : String(error));
  }
}

const QUOTE = '"'.charCodeAt(0);
const BACKSLASH = "\\".charCodeAt(0);

function checkDepth(text: string, limit: number): void {
  let depth = 0;
  for (let i = 0; i < text.length; i++) {
    const character = text[i];
    if (character === '"') i = endOfString(text, i) - 1;
    else if (character === "{" || character === "[") depth++;
    else if (character === "}" || character === "]") depth--;
    if (depth > limit) throw new JsonFault(`nested deeper than ${limit} at character ${i}`);
  }
}

/** The position after the closing quote of the string that starts at `start`. */
function endOfString(text: string, start: number): number {
  let i = start + 1;
  while (i < text.length && text.charCodeAt(i) !== QUOTE) {
    i += text.charCodeAt(i) === BACKSLASH ? 2 : 1;
  }
  return i + 1;
}

/** One walk over the tokens of a text that `JSON.parse` has accepted. */
class KeyScan {
  /** The keys of each open object; null for an open array. */
  readonly #open: (Set<string> | null)[] = [];
  #expectKey = false;

  constructor(readonly text: string, readonly plainIntegers: boolean) {}

  run(): void {
    let i = 0;
    while (i < this.text.length) i = this.#token(i);
  }

  #token(start: number): number {
    const character = this.text[start];
    if (character === '"') return this.#string(start);
    if (character === "-" || (character >= "0" && character <= "9")) return this.#number(start);
    if (character === "{") this.#enter(new Set());
    else if (character === "[") this.#enter(null);
    else if (character === "}" || character === "]") this.#leave();
    else if (character === ",") this.#expectKey = this.#open.at(-1) != null;
    return start + 1;
  }

  #enter(keys: Set<string> | null): void {
    this.#open.push(keys);
    this.#expectKey = keys !== null;
  }

  #leave(): void {
    this.#open.pop();
    this.#expectKey = false;
  }

  #string(start: number): number {
    const end = endOfString(this.text, start);
    const literal = this.text.slice(start, end);
    // Half of a surrogate pair, which UTF-8 cannot hold: other readers refuse it.
    if (/\\u[dD]/.test(literal) && !(JSON.parse(literal) as string).isWellFormed()) {
      throw new JsonFault(`text at character ${start} is not Unicode`);
    }
    if (this.#expectKey) this.#key(literal, start);
    this.#expectKey = false;
    return end;
  }

  #key(literal: string, start: number): void {
    const key = JSON.parse(literal) as string;
    const keys = this.#open.at(-1)!;
    if (keys.has(key)) throw new JsonFault(`key ${literal} twice, again at character ${start}`);
    keys.add(key);
  }

  #number(start: number): number {
    let end = start;
    while (isDigit(this.text.charCodeAt(end))) end++;
    const plain = end > start && !/[.eE]/.test(this.text[end] ?? "") && this.#isSafe(start, end);
    if (this.plainIntegers && !plain) {
      const found = this.text.slice(start, start + 40);
      throw new JsonFault(`number at character ${start} is no plain integer: ${found}`);
    }
    while (/[-+.0-9eE]/.test(this.text[end] ?? "")) end++;
    return end;
  }

  #isSafe(start: number, end: number): boolean {
    return end - start < 16 || Number.isSafeInteger(Number(this.text.slice(start, end)));
  }
}

function isDigit(character: number): boolean {
  return character >= 48 && character <= 57;
}
