/** T5's Unigram tokenizer. */

import { AddedTokenSplitter, PLAIN_TOKEN, withIds } from "./added_tokens.ts";
import { type EncodeOptions, type Encoding, type Frame, frameIds } from "./encoding.ts";
import {
  idOfSpecialToken,
  invalidTokenizer,
  isObject,
  type JsonObject,
  MAX_VOCABULARY,
  parseFile,
  readSpecialTokens,
  requireFile,
  type TokenizerFiles,
} from "./files.ts";
import { PrecompiledCharsmap } from "./precompiled_charsmap.ts";
import { Unigram } from "./unigram.ts";

const ROLES = { eos_token: "</s>", unk_token: "<unk>", pad_token: "<pad>" };
/** T5's vocabulary has its unknown piece third; Transformers takes that for granted. */
const UNKNOWN_ID = 2;
const MAX_SENTINELS = 10_000;
const SPACE = "▁";

/**
 * `T5Tokenizer` of Transformers 5: the charsmap of `tokenizer.json`, words at white space, each with `▁` before it,
 * Unigram pieces, and the end token.
 *
 * Of the file's normalizers only the charsmap is used, and its pre-tokenizer not at all, because Transformers does
 * the same. T5's own file means nearly the same by its other steps: only U+0085 is treated differently.
 */
export class T5Tokenizer {
  readonly #model: Unigram;
  readonly #charsmap: PrecompiledCharsmap | undefined;
  readonly #added: AddedTokenSplitter;
  readonly #frame: Frame;

  private constructor(files: TokenizerFiles) {
    const json = parseFile(files, "tokenizer");
    this.#model = new Unigram(readVocab(json), UNKNOWN_ID);
    this.#charsmap = readCharsmap(json);
    const { special, added } = readSpecialTokens(files, json, ROLES);
    const sentinels = readSentinels(files).map((content) => ({ ...PLAIN_TOKEN, content }));
    this.#added = new AddedTokenSplitter(withIds([...sentinels, ...added], this.#model.ids));
    this.#frame = {
      before: [],
      after: [idOfSpecialToken(this.#model.ids, special.eos_token)],
      pad: idOfSpecialToken(this.#model.ids, special.pad_token),
    };
  }

  /**
   * A tokenizer from `tokenizer.json`.
   *
   * @throws HalftoneError `missing_file` without it, `invalid_config` for a file that is malformed
   */
  static fromFiles(files: TokenizerFiles): T5Tokenizer {
    requireFile(files, "tokenizer");
    return new T5Tokenizer(files);
  }

  /** The ids of a text with the end token, cut and padded. See {@link encodeText} for the errors. */
  encode(text: string, options: EncodeOptions): Int32Array {
    return this.encodeText(text, options).ids;
  }

  /**
   * {@link encode}, saying also what was cut off.
   *
   * @throws HalftoneError `invalid_argument` for a `maxLength` below 1
   */
  encodeText(text: string, options: EncodeOptions): Encoding {
    const ids: number[] = [];
    for (const section of this.#added.split(text.toWellFormed())) {
      if (typeof section === "number") ids.push(section);
      else this.#encodeSection(section, ids);
    }
    return frameIds(ids, this.#frame, options, (cut) => this.decode(cut));
  }

  #encodeSection(section: string, ids: number[]): void {
    const text = this.#charsmap?.normalize(section) ?? section;
    for (const [word] of text.matchAll(/\P{White_Space}+/gu)) {
      const marked = word.startsWith(SPACE) ? word : SPACE + word;
      // A mark within the text starts a piece of its own.
      for (const [part] of marked.matchAll(/▁[^▁]*/gu)) {
        for (const id of this.#model.encode(part)) ids.push(id);
      }
    }
  }

  /** The text of ids. */
  decode(ids: readonly number[]): string {
    return ids.map((id) => this.#model.piece(id)).join("").replaceAll(SPACE, " ").trim();
  }
}

/** T5's fill-in marks; there are `extra_ids` of them even if no file lists them. */
function readSentinels(files: TokenizerFiles): string[] {
  const { extra_ids: count = 100 } = parseFile(files, "tokenizerConfig");
  if (!Number.isInteger(count) || (count as number) < 0 || (count as number) > MAX_SENTINELS) {
    throw invalidTokenizer("tokenizerConfig", "extra_ids", count, `from 0 to ${MAX_SENTINELS}`);
  }
  return Array.from({ length: count as number }, (_, i) => `<extra_id_${i}>`);
}

function readVocab(json: JsonObject): [string, number][] {
  const { model } = json;
  const vocab = isObject(model) && model.type === "Unigram" ? model.vocab : undefined;
  if (!Array.isArray(vocab) || vocab.length <= UNKNOWN_ID || vocab.length > MAX_VOCABULARY) {
    throw invalidTokenizer("tokenizer", "model", undefined, "a Unigram model with its vocabulary");
  }
  for (const entry of vocab) {
    const valid = Array.isArray(entry) && entry.length === 2 && typeof entry[0] === "string" &&
      Number.isFinite(entry[1]);
    if (!valid) throw invalidTokenizer("tokenizer", "vocab", entry, "a piece and its score");
  }
  return vocab;
}

/** The charsmap of the normalizer, or of the first in a sequence that has one. */
function readCharsmap({ normalizer }: JsonObject): PrecompiledCharsmap | undefined {
  const sequence = isObject(normalizer) && normalizer.type === "Sequence"
    ? normalizer.normalizers
    : [normalizer];
  const found = (Array.isArray(sequence) ? sequence : []).filter(isObject)
    .find((step) => step.type === "Precompiled")?.precompiled_charsmap;
  if (found === undefined || found === null) return undefined;
  try {
    return new PrecompiledCharsmap(Uint8Array.from(atob(String(found)), (c) => c.charCodeAt(0)));
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw invalidTokenizer("tokenizer", "precompiled_charsmap", reason, "a compiled charsmap");
  }
}
