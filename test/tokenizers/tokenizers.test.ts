/** Both tokenizers against those of Transformers. */

import { test } from "node:test";
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { gunzipSync } from "node:zlib";
import { HalftoneError } from "../../src/errors.ts";
import { ClipTokenizer } from "../../src/tokenizers/clip.ts";
import { TOKENIZER_FILE_NAMES, type TokenizerFiles } from "../../src/tokenizers/files.ts";
import { T5Tokenizer } from "../../src/tokenizers/t5.ts";
import { readTokenizerFolder } from "./folder.ts";

const demo = new URL("../../models/demo/", import.meta.url);
const clipFiles = readTokenizerFolder(fileURLToPath(new URL("tokenizer", demo)));
const t5Files = readTokenizerFolder(fileURLToPath(new URL("tokenizer_2", demo)));
const clip = ClipTokenizer.fromFiles(clipFiles);
const t5 = T5Tokenizer.fromFiles(t5Files);

function golden(name: string): URL {
  return new URL(`../goldens/${name}`, import.meta.url);
}

function readJson<T>(name: string): T {
  return JSON.parse(readFileSync(golden(name), "utf8"));
}

function allIds(tokenizer: ClipTokenizer | T5Tokenizer, text: string): number[] {
  return [...tokenizer.encode(text, { maxLength: 5000, padding: "none" })];
}

/** A Unigram tokenizer with SentencePiece's charsmap. */
function tinyT5(): T5Tokenizer {
  const json = readJson<{ normalizer: { normalizers: unknown[] } }>("tokenizers/t5_tiny.json");
  const charsmap = gunzipSync(readFileSync(golden("tokenizers/nmt_nfkc.charsmap.gz")));
  json.normalizer.normalizers.push({
    type: "Precompiled",
    precompiled_charsmap: charsmap.toString("base64"),
  });
  return T5Tokenizer.fromFiles({ tokenizer: JSON.stringify(json) });
}

interface OddText {
  text: string;
  clip: number[];
  clip_77: number[];
  t5: number[];
  t5_16: number[];
  t5_transformers?: number[];
}

test("odd strings give the ids of Transformers, cut and padded too", () => {
  const texts = readJson<OddText[]>("components/tokenizers.json");
  assert.ok(texts.length >= 60);
  for (const golden of texts) {
    const label = JSON.stringify(golden.text);
    assert.deepEqual(allIds(clip, golden.text), golden.clip, label);
    assert.deepEqual([...clip.encode(golden.text, { maxLength: 77 })], golden.clip_77, label);
    assert.deepEqual(allIds(t5, golden.text), golden.t5_transformers ?? golden.t5, label);
    if (golden.t5_transformers) continue;
    assert.deepEqual([...t5.encode(golden.text, { maxLength: 16 })], golden.t5_16, label);
  }
});

test("random Unicode strings give the ids of Transformers", () => {
  const tiny = tinyT5();
  const rows = readJson<[string, number[], number[], number[]][]>("tokenizers/random_texts.json");
  assert.ok(rows.length >= 300);
  for (const [text, clipIds, t5Ids, tinyIds] of rows) {
    assert.deepEqual(allIds(clip, text), clipIds, JSON.stringify(text));
    assert.deepEqual(allIds(t5, text), t5Ids, JSON.stringify(text));
    assert.deepEqual(allIds(tiny, text), tinyIds, JSON.stringify(text));
  }
});

interface Variant {
  name: string;
  base: "tokenizer" | "tokenizer_2";
  changes: Record<string, unknown>;
  length: number;
  ids: [string, number[]][];
}

test("special tokens follow their declarations as in Transformers", () => {
  for (
    const { name, base, changes, length, ids } of readJson<Variant[]>("tokenizers/variants.json")
  ) {
    const files: TokenizerFiles = { ...(base === "tokenizer" ? clipFiles : t5Files) };
    for (const key of Object.keys(TOKENIZER_FILE_NAMES) as (keyof TokenizerFiles)[]) {
      const changed = changes[TOKENIZER_FILE_NAMES[key]];
      if (changed !== undefined) files[key] = JSON.stringify(changed);
    }
    const tokenizer = base === "tokenizer"
      ? ClipTokenizer.fromFiles(files)
      : T5Tokenizer.fromFiles(files);
    for (const [text, expected] of ids) {
      const found = [...tokenizer.encode(text, { maxLength: length })];
      assert.deepEqual(found, expected, `${name}: ${JSON.stringify(text)}`);
    }
  }
});

test("tokenizer.json and vocab.json with merges.txt are the same CLIP tokenizer", () => {
  const vocab = JSON.parse(clipFiles.vocab!);
  const merges = clipFiles.merges!.trim().split("\n").slice(1);
  for (const list of [merges, merges.map((merge) => merge.split(" "))]) {
    const tokenizer = JSON.stringify({ model: { type: "BPE", vocab, merges: list } });
    const fromJson = ClipTokenizer.fromFiles({ tokenizer });
    for (const text of ["a red star above a blue house", "Ünï ½ 😀 don't", "<|endoftext|> a"]) {
      assert.deepEqual(allIds(fromJson, text), allIds(clip, text));
    }
  }
});

test("what is cut off is counted and told", () => {
  const text = "a red star above a blue house on a white background";
  const full = clip.encodeText(text, { maxLength: 77 });
  assert.deepEqual([full.length, full.truncated, full.truncatedText], [13, 0, ""]);
  assert.equal(full.ids.length, 77);
  const cut = clip.encodeText(text, { maxLength: 6 });
  assert.deepEqual([cut.length, cut.truncated], [6, 7]);
  assert.equal(cut.truncatedText, "a blue house on a white background");
  assert.equal(cut.ids[5], full.ids[12]);
  const cutT5 = t5.encodeText(text, { maxLength: 6 });
  assert.deepEqual([cutT5.length, cutT5.ids[5]], [6, 1]);
  assert.equal(cutT5.truncatedText, "blue house on a white background");
  assert.deepEqual([...t5.encode(text, { maxLength: 1 })], [1]);
});

test("decoding gives words back", () => {
  assert.equal(clip.decode(allIds(clip, "A Blue star, 12!").slice(1, -1)), "a blue star , 1 2 !");
  assert.equal(t5.decode(allIds(t5, "a Blue star").slice(0, -1)), "a Blue star");
});

test("lone surrogates count as the replacement character", () => {
  assert.deepEqual(allIds(clip, "a\ud800b"), allIds(clip, "a\ufffdb"));
  assert.deepEqual(allIds(t5, "\udfff"), allIds(t5, "\ufffd"));
});

function assertFast(tokenizer: ClipTokenizer | T5Tokenizer, prompt: string, seconds: number): void {
  const start = performance.now();
  assert.equal(tokenizer.encode(prompt, { maxLength: 77 }).length, 77);
  const taken = (performance.now() - start) / 1000;
  assert.ok(taken < seconds, `${taken} s for ${JSON.stringify(prompt.slice(0, 20))}...`);
}

test("a prompt of a megabyte is cut to the limit in bounded time", () => {
  const words = "a red star above a blue house ".repeat(35_000);
  for (const tokenizer of [clip, t5, tinyT5()]) assertFast(tokenizer, words, 10);
});

test("long prompts without a space take no more than linear time either", () => {
  const tiny = tinyT5();
  const units = [
    "x",
    "qzjxkvbpygfwmucldrhsnioate",
    " ",
    "\u0301é日本",
    "<|endoftext|>",
    "</s>",
    "▁",
  ];
  for (const unit of units) {
    const prompt = unit.repeat(100_000 / unit.length);
    for (const tokenizer of [clip, t5, tiny]) assertFast(tokenizer, prompt, 3);
  }
});

function throwsCode(code: string, run: () => unknown, label = ""): void {
  assert.throws(run, (error) => error instanceof HalftoneError && error.code === code, label);
}

test("a length without room for the special tokens is refused", () => {
  for (const maxLength of [1, 0, -5, 2.5, NaN, 1e9]) {
    throwsCode("invalid_argument", () => clip.encode("a", { maxLength }), String(maxLength));
  }
  throwsCode("invalid_argument", () => t5.encode("a", { maxLength: 0 }));
});

test("missing and malformed files are refused by name", () => {
  throwsCode("missing_file", () => ClipTokenizer.fromFiles({}));
  throwsCode("missing_file", () => ClipTokenizer.fromFiles({ vocab: clipFiles.vocab }));
  throwsCode("missing_file", () => T5Tokenizer.fromFiles({ vocab: clipFiles.vocab }));
  const badClip: TokenizerFiles[] = [
    { ...clipFiles, vocab: "{" },
    { ...clipFiles, vocab: "[]" },
    { ...clipFiles, vocab: '{"a": 0, "a": 1}' },
    { ...clipFiles, vocab: '{"<|startoftext|>": 0, "<|endoftext|>": -1}' },
    { ...clipFiles, vocab: '{"<|startoftext|>": 0, "<|endoftext|>": 1e12}' },
    { ...clipFiles, vocab: '{"<|startoftext|>": 0, "<|endoftext|>": 0}' },
    { ...clipFiles, vocab: '{"a": 0}' },
    { ...clipFiles, merges: "#version: 0.2\na b c\n" },
    { ...clipFiles, merges: "zzzz yyyy\n" },
    { ...clipFiles, tokenizer: "{}" },
    { ...clipFiles, tokenizer: '{"model": {"type": "Unigram", "vocab": []}}' },
    { ...clipFiles, specialTokensMap: '{"eos_token": 5}' },
    { ...clipFiles, specialTokensMap: '{"eos_token": "not there"}' },
    { ...clipFiles, tokenizerConfig: '{"added_tokens_decoder": {"x": {"content": "y"}}}' },
    { ...clipFiles, tokenizerConfig: '{"added_tokens_decoder": {"1": null}}' },
  ];
  badClip.forEach((files, i) =>
    throwsCode("invalid_config", () => ClipTokenizer.fromFiles(files), `case ${i}`)
  );
  const model = (vocab: unknown) => JSON.stringify({ model: { type: "Unigram", vocab } });
  const pieces = [["<pad>", 0], ["</s>", 0], ["<unk>", 0], ["▁", -1]];
  const charsmap = (blob: unknown) =>
    JSON.stringify({
      ...JSON.parse(model(pieces)),
      normalizer: { type: "Precompiled", precompiled_charsmap: blob },
    });
  const badT5 = ["", "null", "{}", model([]), model("x"), model([["a"], ["b"], ["c"]])];
  badT5.push(model([["a", 0], ["b", "0"], ["c", 0]]), model([["a", 0], ["b", 0], ["c", 0]]));
  badT5.push(charsmap(5), charsmap(""), charsmap("////"), charsmap("/////w=="), charsmap("###"));
  badT5.forEach((tokenizer, i) =>
    throwsCode("invalid_config", () => T5Tokenizer.fromFiles({ tokenizer }), `case ${i}`)
  );
  assert.deepEqual(allIds(T5Tokenizer.fromFiles({ tokenizer: model(pieces) }), "a"), [3, 2, 1]);
});
