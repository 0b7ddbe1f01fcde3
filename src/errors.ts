/** The one error class of halftone: every failure a user can meet has a stable `code`. */

/** Stable, documented codes; `docs/errors.md` lists what each means. */
export type ErrorCode =
  | "invalid_argument" // a call or option that cannot be meant
  | "invalid_config" // a config.json that is malformed or absurd
  | "invalid_safetensors" // a safetensors file that breaks the format
  | "invalid_gguf" // a GGUF file that breaks the format
  | "unsupported_file" // pickle, zip, gzip and other containers we refuse
  | "unsupported" // a known feature that this version lacks
  | "missing_file"
  | "missing_tensor"
  | "unexpected_tensor"
  | "tensor_shape_mismatch"
  | "non_finite_weight"
  | "unsafe_path" // a shard name that leaves the model folder
  | "model_not_found"
  | "download_failed" // a model file that did not arrive whole
  | "quantization_config"
  | "out_of_memory"
  | "plan_invalid"
  | "backend_unavailable"
  | "backend_failed"
  | "write_failed"
  | "aborted"
  | "closed";

/** Where the fault lies and what was compared; every field is optional. */
export interface ErrorDetail {
  /** The file at fault. */
  file?: string;
  /** The tensor at fault. */
  tensor?: string;
  /** The option, config key or header field at fault. */
  field?: string;
  /** What was there. */
  found?: unknown;
  /** What should have been there. */
  expected?: unknown;
  /** What the user can do. */
  remedy?: string;
}

/** An error with a stable code, the place, what was found and expected, and the remedy. */
export class HalftoneError extends Error {
  /** "HalftoneError", also where `instanceof` cannot reach. */
  override readonly name = "HalftoneError";
  /** The stable code. */
  readonly code: ErrorCode;
  /** The place and the values. */
  readonly detail: ErrorDetail;
  /** The message without the detail. */
  readonly summary: string;

  /** `message` starts with the action ("Cannot parse ..."); the detail is appended to it. */
  constructor(code: ErrorCode, message: string, detail: ErrorDetail = {}, cause?: unknown) {
    super(describe(message, detail), cause === undefined ? undefined : { cause });
    this.code = code;
    this.detail = detail;
    this.summary = message;
  }

  /** The same error, told by one who knows the file. */
  inFile(file: string): HalftoneError {
    return new HalftoneError(this.code, this.summary, { ...this.detail, file }, this);
  }
}

/** Runs an action whose errors do not know their file. */
export function namingFile<Result>(file: string, action: () => Result): Result {
  try {
    return action();
  } catch (error) {
    throw error instanceof HalftoneError && !error.detail.file ? error.inFile(file) : error;
  }
}

/** Refuses options that are not in the list. */
export function checkKnownOptions(options: object, known: readonly string[]): void {
  const unknown = Object.keys(options).find((key) => !known.includes(key));
  if (unknown !== undefined) throw invalidOption(unknown, "an unknown option", known.join(", "));
}

/** The error for an option that cannot be meant. */
export function invalidOption(field: string, found: unknown, expected: string): HalftoneError {
  return new HalftoneError("invalid_argument", "Cannot use this option", {
    field,
    found: found === undefined ? "nothing" : found,
    expected,
  });
}

function describe(message: string, detail: ErrorDetail): string {
  const place = [
    detail.file && `file ${quote(detail.file)}`,
    detail.tensor && `tensor ${quote(detail.tensor)}`,
    detail.field && `field ${quote(detail.field)}`,
  ].filter(Boolean).join(", ");
  const values = [
    detail.found !== undefined && `found ${quote(detail.found)}`,
    detail.expected !== undefined && `expected ${plain(detail.expected)}`,
  ].filter(Boolean).join(", ");
  const what = [place ? `${message} (${place})` : message, values].filter(Boolean).join(": ");
  return detail.remedy ? `${what}. ${detail.remedy}` : what;
}

/** Longest value shown whole. */
const MOST_CHARACTERS = 200;

/** A value from outside: strings in quotes, long ones cut. */
function quote(value: unknown): string {
  const text = plain(value);
  const short = text.length > MOST_CHARACTERS ? `${text.slice(0, MOST_CHARACTERS)}...` : text;
  return typeof value === "string" ? `"${short}"` : short;
}

/** Names in files may hold anything, also what a terminal would obey or what swaps text around. */
function plain(value: unknown): string {
  const text = typeof value === "string" ? value : JSON.stringify(value) ?? String(value);
  return text.replace(
    /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu,
    (character) => `\\u{${character.codePointAt(0)!.toString(16)}}`,
  );
}
