/** CLIP's byte-pair tokenizer. */

import { BPE } from "@huggingface/tokenizers";
import { AddedTokenSplitter, withIds } from "./added_tokens.ts";
import { decodeBytes, encodeBytes } from "./byte_alphabet.ts";
import { type EncodeOptions, type Encoding, type Frame, frameIds } from "./encoding.ts";
import {
  checkedId,
  idOfSpecialToken,
  invalidTokenizer,
  isObject,
  type JsonObject,
  parseFile,
  readSpecialTokens,
  requireFile,
  type TokenizerFiles,
} from "./files.ts";

const END_OF_WORD = "</w>";

const ROLES = {
  bos_token: "<|startoftext|>",
  eos_token: "<|endoftext|>",
  unk_token: "<|endoftext|>",
  pad_token: "<|endoftext|>",
};

// White_Space, not \s: in JavaScript that lacks U+0085 and has U+FEFF besides.
const SPACES = /\p{White_Space}+/gu;
const WORDS =
  /<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\p{White_Space}\p{L}\p{N}]+/gu;
/** GPT-2's split, which the byte level applies to each word again; it takes `<|endoftext|>` apart. */
const BYTE_LEVEL_WORDS =
  /'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\p{White_Space}\p{L}\p{N}]+|\p{White_Space}+/gu;

/** The vocabulary and merges of a BPE model. */
interface BytePairFiles {
  vocab: Record<string, number>;
  merges: [string, string][];
}

/**
 * `CLIPTokenizer` of Transformers 5: NFC, white space to one space, lower case, words, bytes, byte pairs, between
 * the start and the end token.
 */
export class ClipTokenizer {
  readonly #model: BPE;
  readonly #unknownId: number;
  readonly #given: AddedTokenSplitter;
  readonly #normalized: AddedTokenSplitter;
  readonly #frame: Frame;

  private constructor(files: TokenizerFiles) {
    const json = parseFile(files, "tokenizer");
    const { special, added } = readSpecialTokens(files, json, ROLES);
    const model = files.tokenizer === undefined ? readVocabAndMerges(files) : readModel(json);
    this.#model = bytePairModel(model, special.unk_token);
    const ids = this.#model.tokens_to_ids;
    this.#frame = {
      before: [idOfSpecialToken(ids, special.bos_token)],
      after: [idOfSpecialToken(ids, special.eos_token)],
      pad: idOfSpecialToken(ids, special.pad_token),
    };
    this.#unknownId = idOfSpecialToken(ids, special.unk_token);
    const known = withIds(added, ids);
    this.#given = new AddedTokenSplitter(known.filter((token) => !token.normalized));
    this.#normalized = new AddedTokenSplitter(
      known.filter((token) => token.normalized)
        .map((token) => ({ ...token, content: normalize(token.content) })),
    );
  }

  /**
   * A tokenizer from `tokenizer.json`, or from `vocab.json` and `merges.txt`.
   *
   * @throws HalftoneError `missing_file` if neither is there, `invalid_config` for a file that is malformed
   */
  static fromFiles(files: TokenizerFiles): ClipTokenizer {
    return new ClipTokenizer(files);
  }

  /** The ids of a text with start and end, cut and padded. See {@link encodeText} for the errors. */
  encode(text: string, options: EncodeOptions): Int32Array {
    return this.encodeText(text, options).ids;
  }

  /**
   * {@link encode}, saying also what was cut off.
   *
   * @throws HalftoneError `invalid_argument` for a `maxLength` below 2
   */
  encodeText(text: string, options: EncodeOptions): Encoding {
    const ids = this.#given.split(text.toWellFormed()).flatMap((section) =>
      typeof section === "number" ? [section] : this.#encodeSection(section)
    );
    return frameIds(ids, this.#frame, options, (cut) => this.decode(cut));
  }

  #encodeSection(section: string): number[] {
    return this.#normalized.split(normalize(section)).flatMap((part) =>
      typeof part === "number" ? [part] : this.#encodeWords(part)
    );
  }

  #encodeWords(text: string): number[] {
    const ids: number[] = [];
    for (const [word] of text.matchAll(WORDS)) {
      for (const [part] of word.matchAll(BYTE_LEVEL_WORDS)) this.#encodeWord(part, ids);
    }
    return ids;
  }

  #encodeWord(word: string, ids: number[]): void {
    for (const piece of this.#model.bpe(encodeBytes(word))) {
      ids.push(this.#model.tokens_to_ids.get(piece) ?? this.#unknownId);
    }
  }

  /** The text of ids, words apart by one space. */
  decode(ids: readonly number[]): string {
    const pieces = ids.map((id) => this.#model.vocab[id] ?? "");
    return pieces.map((piece) =>
      piece.endsWith(END_OF_WORD)
        ? `${decodeBytes(piece.slice(0, -END_OF_WORD.length))} `
        : decodeBytes(piece)
    ).join("").trim();
  }
}

function normalize(text: string): string {
  // The capital sigma first: at the end of a word JavaScript would make it a final sigma, Rust does not.
  return text.normalize("NFC").replace(SPACES, " ").replaceAll("Σ", "σ").toLowerCase();
}

function bytePairModel({ vocab, merges }: BytePairFiles, unknown: string): BPE {
  return new BPE({
    type: "BPE",
    vocab,
    merges,
    unk_token: unknown,
    end_of_word_suffix: END_OF_WORD,
    ignore_merges: false,
  });
}

function readModel({ model }: JsonObject): BytePairFiles {
  if (!isObject(model) || !isObject(model.vocab) || !Array.isArray(model.merges)) {
    throw invalidTokenizer("tokenizer", "model", undefined, "a BPE model with vocab and merges");
  }
  const vocab = checkedVocab(model.vocab, "tokenizer");
  const merges = model.merges.map((merge) => typeof merge === "string" ? merge.split(" ") : merge);
  return { vocab, merges: checkedMerges(merges, vocab, "tokenizer") };
}

function readVocabAndMerges(files: TokenizerFiles): BytePairFiles {
  requireFile(files, "vocab");
  const vocab = checkedVocab(parseFile(files, "vocab"), "vocab");
  const lines = requireFile(files, "merges").split(/\r?\n/);
  const merges = lines.filter((line) => line !== "" && !line.startsWith("#version"))
    .map((line) => line.split(" "));
  return { vocab, merges: checkedMerges(merges, vocab, "merges") };
}

function checkedVocab(vocab: JsonObject, file: keyof TokenizerFiles): Record<string, number> {
  const entries = Object.entries(vocab);
  for (const [token, id] of entries) checkedId(id, file, token);
  if (new Set(Object.values(vocab)).size === entries.length) return vocab as Record<string, number>;
  throw invalidTokenizer(file, "vocab", "an id twice", "one id for each token");
}

/** Merges of tokens that the vocabulary has, as has their result. */
function checkedMerges(
  merges: readonly unknown[],
  vocab: Readonly<Record<string, number>>,
  file: keyof TokenizerFiles,
): [string, string][] {
  for (const merge of merges) {
    const isPair = Array.isArray(merge) && merge.length === 2 &&
      [...merge, merge.join("")].every((part) => Object.hasOwn(vocab, part));
    if (!isPair) throw invalidTokenizer(file, "merges", merge, "two tokens of the vocabulary");
  }
  return merges as [string, string][];
}
