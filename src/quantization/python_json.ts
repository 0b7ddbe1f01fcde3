/**
 * JSON as Python's json module writes it, for bytes that Python libraries compare or check the types of:
 * Diffusers refuses the threshold 6 where 6.0 is meant, and a quant_state is matched byte for byte.
 */

/** Values of JSON, with numbers that keep their spelling. */
export type JsonValue =
  | null
  | boolean
  | number
  | string
  | JsonNumber
  | readonly JsonValue[]
  | { readonly [key: string]: JsonValue };

/** A number with its spelling (1.0 and 1e-06 are not what JavaScript would write). */
export class JsonNumber {
  /** The spelling. */
  readonly text: string;

  /** Takes the spelling as it is. */
  constructor(text: string) {
    this.text = text;
  }

  /** A Python float, which always shows its point or exponent. */
  static float(value: number): JsonNumber {
    return new JsonNumber(pythonFloat(value));
  }

  /** The value, so that JSON.stringify and arithmetic work too. */
  valueOf(): number {
    return Number(this.text);
  }

  /** The value, for JSON.stringify. */
  toJSON(): number {
    return Number(this.text);
  }
}

/** How to lay the text out. */
export interface PythonJsonOptions {
  /** Spaces per level; one line when absent. */
  readonly indent?: number;
  readonly sortKeys?: boolean;
}

/** json.dumps(value, indent=..., sort_keys=...): ", " and ": " on one line, non-ASCII escaped. */
export function pythonJson(value: JsonValue, options: PythonJsonOptions = {}): string {
  return write(value, options, 0);
}

/** Parses JSON, keeping the spelling of every number. Throws SyntaxError as JSON.parse does. */
export function parseJsonKeepingNumbers(text: string): JsonValue {
  JSON.parse(text); // so that marking below sees valid JSON only
  const marked = text.replace(
    /"(?:[^"\\]|\\.)*"|-?\d[\d.eE+-]*/g,
    (token) => token.startsWith('"') ? token : `{"${NUMBER_KEY}":"${token}"}`,
  );
  return JSON.parse(
    marked,
    (_, value) => isMarked(value) ? new JsonNumber(value[NUMBER_KEY]) : value,
  );
}

/** repr() of a Python float. */
export function pythonFloat(value: number): string {
  if (!Number.isFinite(value)) {
    return Number.isNaN(value) ? "NaN" : value > 0 ? "Infinity" : "-Infinity";
  }
  if (Object.is(value, -0)) return "-0.0";
  const [mantissa, exponentText] = shortestDigits(value).split("e");
  const exponent = Number(exponentText);
  return exponent < -4 || exponent >= 16
    ? scientific(mantissa, exponent)
    : positional(mantissa, exponent);
}

/** A key no config has; it marks a number's spelling between the two passes. */
const NUMBER_KEY = "spelling of a number";

function isMarked(value: unknown): value is { [NUMBER_KEY]: string } {
  if (typeof value !== "object" || value === null || !(NUMBER_KEY in value)) return false;
  return /^-?\d[\d.eE+-]*$/.test(String(value[NUMBER_KEY]));
}

function scientific(mantissa: string, exponent: number): string {
  const digits = String(Math.abs(exponent)).padStart(2, "0");
  return `${mantissa}e${exponent < 0 ? "-" : "+"}${digits}`;
}

function positional(mantissa: string, exponent: number): string {
  const sign = mantissa.startsWith("-") ? "-" : "";
  const digits = mantissa.replace(/[-.]/g, "");
  if (exponent < 0) return `${sign}0.${"0".repeat(-exponent - 1)}${digits}`;
  const whole = digits.slice(0, exponent + 1).padEnd(exponent + 1, "0");
  return `${sign}${whole}.${digits.slice(exponent + 1) || "0"}`;
}

/**
 * The fewest digits that read back as the value, as toExponential gives them. Where two such numbers
 * are equally near, JavaScript leaves the choice to the engine; Python takes the even last digit.
 */
function shortestDigits(value: number): string {
  const shortest = value.toExponential();
  const length = shortest.split("e")[0].replace(/[-.]/g, "").length;
  const exact = value.toExponential(EXACT_DIGITS);
  const isTie = /^50*$/.test(exact.split("e")[0].replace(/[-.]/g, "").slice(length));
  if (!isTie) return shortest;
  const even = [roundedDown(exact, length), shortest].find((text) => /[02468]e/.test(text));
  return even !== undefined && Number(even) === value ? even : shortest;
}

/** Enough for a tie to show; JavaScript allows 100. */
const EXACT_DIGITS = 100;

/** The number cut to so many digits. */
function roundedDown(exact: string, length: number): string {
  const [mantissa, exponent] = exact.split("e");
  const start = mantissa.startsWith("-") ? 1 : 0;
  return `${mantissa.slice(0, start + (length > 1 ? length + 1 : 1))}e${exponent}`;
}

function write(value: JsonValue, options: PythonJsonOptions, level: number): string {
  if (value === null || typeof value === "boolean") return String(value);
  if (typeof value === "string") return quote(value);
  if (typeof value === "number") {
    return Number.isInteger(value) ? String(value) : pythonFloat(value);
  }
  if (value instanceof JsonNumber) return value.text;
  if (Array.isArray(value)) {
    return enclose("[", value.map((item) => write(item, options, level + 1)), "]", options, level);
  }
  const record = value as { readonly [key: string]: JsonValue };
  const keys = Object.keys(record).filter((key) => record[key] !== undefined);
  if (options.sortKeys) keys.sort();
  const items = keys.map((key) => `${quote(key)}: ${write(record[key], options, level + 1)}`);
  return enclose("{", items, "}", options, level);
}

function enclose(
  open: string,
  items: readonly string[],
  close: string,
  options: PythonJsonOptions,
  level: number,
): string {
  if (options.indent === undefined || items.length === 0) return open + items.join(", ") + close;
  const inner = `\n${" ".repeat(options.indent * (level + 1))}`;
  return open + inner + items.join(`,${inner}`) + `\n${" ".repeat(options.indent * level)}` + close;
}

function quote(text: string): string {
  return JSON.stringify(text).replace(
    /[\u007f-\uffff]/g,
    (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, "0")}`,
  );
}
