/** The files of a tokenizer folder, parsed and checked; they are untrusted input. */

import { HalftoneError } from "../errors.ts";
import { JsonFault, parseStrictJson } from "../io/json.ts";
import { type AddedToken, PLAIN_TOKEN } from "./added_tokens.ts";

/** The texts of a tokenizer's files; those the folder lacks are left out. */
export interface TokenizerFiles {
  /** `tokenizer.json`: everything in one file; preferred to the vocabulary and merges. */
  tokenizer?: string;
  /** `vocab.json`: the ids of a BPE vocabulary. */
  vocab?: string;
  /** `merges.txt`: the merges of a BPE vocabulary, best first. */
  merges?: string;
  /** `tokenizer_config.json`: names of the special tokens, and the added tokens. */
  tokenizerConfig?: string;
  /** `special_tokens_map.json`: names of the special tokens, in older folders. */
  specialTokensMap?: string;
  /** `added_tokens.json`: ids of added tokens, in older folders. */
  addedTokens?: string;
}

/** The name of each file in the folder. */
export const TOKENIZER_FILE_NAMES: Readonly<Record<keyof TokenizerFiles, string>> = {
  tokenizer: "tokenizer.json",
  vocab: "vocab.json",
  merges: "merges.txt",
  tokenizerConfig: "tokenizer_config.json",
  specialTokensMap: "special_tokens_map.json",
  addedTokens: "added_tokens.json",
};

/** No vocabulary is larger; bounds what is allocated for ids. */
export const MAX_VOCABULARY = 2 ** 22;

/** An object of a JSON file. */
export type JsonObject = Readonly<Record<string, unknown>>;

/** The error for a tokenizer file that cannot be used. */
export function invalidTokenizer(
  file: keyof TokenizerFiles,
  field: string | undefined,
  found: unknown,
  expected: string,
): HalftoneError {
  return new HalftoneError("invalid_config", "Cannot use the tokenizer", {
    file: TOKENIZER_FILE_NAMES[file],
    field,
    found: found === undefined ? "nothing" : found,
    expected,
  });
}

/** The object in a JSON file; an empty one when the file is absent. */
export function parseFile(files: TokenizerFiles, file: keyof TokenizerFiles): JsonObject {
  const text = files[file];
  if (text === undefined) return {};
  try {
    const value = parseStrictJson(text);
    if (isObject(value)) return value;
  } catch (error) {
    if (!(error instanceof JsonFault)) throw error;
    throw invalidTokenizer(file, undefined, error.message, "JSON");
  }
  throw invalidTokenizer(file, undefined, text.slice(0, 40), "a JSON object");
}

/** The text of a file that must be there. */
export function requireFile(files: TokenizerFiles, file: keyof TokenizerFiles): string {
  const text = files[file];
  if (text !== undefined) return text;
  throw new HalftoneError("missing_file", "Cannot load the tokenizer", {
    file: TOKENIZER_FILE_NAMES[file],
    remedy: "Give a model folder as Diffusers writes it, with its tokenizer files.",
  });
}

/** Whether a JSON value is an object. */
export function isObject(value: unknown): value is JsonObject {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** A vocabulary id, checked. */
export function checkedId(
  id: unknown,
  file: keyof TokenizerFiles,
  field: string,
): number {
  if (Number.isInteger(id) && (id as number) >= 0 && (id as number) < MAX_VOCABULARY) {
    return id as number;
  }
  throw invalidTokenizer(file, field, id, `an integer from 0 to ${MAX_VOCABULARY - 1}`);
}

/** The id of a token that has a role, which the vocabulary must have. */
export function idOfSpecialToken(vocab: ReadonlyMap<string, number>, token: string): number {
  const id = vocab.get(token);
  if (id !== undefined) return id;
  throw new HalftoneError("invalid_config", "Cannot use the tokenizer", {
    field: "special tokens",
    found: "a vocabulary without it",
    expected: token,
  });
}

/**
 * The special tokens and the added tokens a folder declares, as Transformers reads them: roles from
 * `tokenizer_config.json` (or `special_tokens_map.json`), properties from `added_tokens_decoder` (or
 * `tokenizer.json`).
 *
 * @param tokenizer the parsed `tokenizer.json`, empty if there is none
 * @param roles the roles with their defaults, such as `{ eos_token: "</s>" }`
 */
export function readSpecialTokens<Role extends string>(
  files: TokenizerFiles,
  tokenizer: JsonObject,
  roles: Readonly<Record<Role, string>>,
): { special: Record<Role, string>; added: AddedToken[] } {
  const config = parseFile(files, "tokenizerConfig");
  const declared = readDeclared(files, config, tokenizer);
  const named = "added_tokens_decoder" in config
    ? config
    : { ...config, ...parseFile(files, "specialTokensMap") };
  const special: Record<Role, string> = { ...roles };
  const added = new Map(declared.map((token) => [token.content, token]));
  for (const role of Object.keys(roles) as Role[]) {
    const token = readNamed(named[role] ?? roles[role], role);
    special[role] = token.content;
    if (!added.has(token.content)) added.set(token.content, token);
  }
  for (const token of readExtra(named)) {
    if (!added.has(token.content)) added.set(token.content, token);
  }
  return { special, added: [...added.values()] };
}

function readDeclared(
  files: TokenizerFiles,
  config: JsonObject,
  tokenizer: JsonObject,
): AddedToken[] {
  const decoder = config.added_tokens_decoder;
  if (isObject(decoder)) {
    return Object.entries(decoder).map(([id, token]) =>
      readToken({ id: Number(id), ...token as JsonObject }, "tokenizerConfig")
    );
  }
  const legacy = Object.entries(parseFile(files, "addedTokens")).map(([content, id]) =>
    readToken({ content, id }, "addedTokens")
  );
  const list = tokenizer.added_tokens;
  const listed = Array.isArray(list) ? list.map((token) => readToken(token, "tokenizer")) : [];
  return [...legacy, ...listed];
}

/** A role's token: a string, or an object with its properties. */
function readNamed(value: unknown, role: string): AddedToken {
  if (typeof value === "string") return { ...PLAIN_TOKEN, content: value };
  return readToken(value, "specialTokensMap", role);
}

/** Tokens without a role: T5's sentinels and the like. */
function readExtra(config: JsonObject): AddedToken[] {
  const list = config.extra_special_tokens ?? config.additional_special_tokens;
  if (!Array.isArray(list)) return [];
  return list.map((token) => readNamed(token, "additional_special_tokens"));
}

function readToken(value: unknown, file: keyof TokenizerFiles, field = "added_tokens"): AddedToken {
  if (!isObject(value) || typeof value.content !== "string" || value.content === "") {
    throw invalidTokenizer(file, field, value, "a token with its content");
  }
  return {
    content: value.content,
    singleWord: value.single_word === true,
    leftStrip: value.lstrip === true,
    rightStrip: value.rstrip === true,
    normalized: value.normalized === true,
    ...(value.id === undefined ? {} : { id: checkedId(value.id, file, value.content) }),
  };
}
