/** Cutting texts at added tokens. */

import { test } from "node:test";
import assert from "node:assert/strict";
import {
  type AddedToken,
  AddedTokenSplitter,
  PLAIN_TOKEN,
  withIds,
} from "../../src/tokenizers/added_tokens.ts";
import { ClipTokenizer } from "../../src/tokenizers/clip.ts";

function token(
  content: string,
  id: number,
  rest: Partial<AddedToken> = {},
): AddedToken & { id: number } {
  return { ...PLAIN_TOKEN, content, id, ...rest };
}

test("texts are cut at the leftmost and longest tokens", () => {
  const splitter = new AddedTokenSplitter([token("<a>", 1), token("<a><b>", 2), token("<b>", 3)]);
  assert.deepEqual(splitter.split("x<a><b>y<b>"), ["x", 2, "y", 3]);
  assert.deepEqual(splitter.split("<a><a><b>"), [1, 2]);
  assert.deepEqual(splitter.split("none"), ["none"]);
  assert.deepEqual(splitter.split(""), []);
});

test("signs with a meaning in patterns are plain text", () => {
  const splitter = new AddedTokenSplitter([token("(.*)+[a]{2}|\\/^$?", 7), token("😀", 8)]);
  assert.deepEqual(splitter.split("a(.*)+[a]{2}|\\/^$?😀b"), ["a", 7, 8, "b"]);
});

test("stripping tokens take the white space beside them along", () => {
  const left = new AddedTokenSplitter([token("<s>", 1, { leftStrip: true })]);
  assert.deepEqual(left.split("a \t<s> b"), ["a", 1, " b"]);
  assert.deepEqual(left.split("  <s>"), [1]);
  const right = new AddedTokenSplitter([token("<s>", 1, { rightStrip: true })]);
  assert.deepEqual(right.split("a <s> \n\u3000b"), ["a ", 1, "b"]);
  assert.deepEqual(right.split("<s>  "), [1]);
});

test("single words only match beside characters that are no part of a word", () => {
  const splitter = new AddedTokenSplitter([token("sks", 1, { singleWord: true })]);
  assert.deepEqual(splitter.split("sks a_sks sksé 😀sks, 𝐀sks"), [
    1,
    " a_sks sksé 😀",
    1,
    ", 𝐀sks",
  ]);
});

test("a token without an id of its own or of the vocabulary is left out", () => {
  const tokens = [token("in", 9), { ...PLAIN_TOKEN, content: "out" }, token("new", 12)];
  const vocab = new Map([["in", 5]]);
  assert.deepEqual(withIds(tokens, vocab).map(({ content, id }) => [content, id]), [
    ["in", 5],
    ["new", 12],
  ]);
});

test("tokens of added_tokens.json and of tokenizer.json count", () => {
  const vocab = { "<|startoftext|>": 0, "<|endoftext|>": 1, "a</w>": 2, "a": 3 };
  const options = { maxLength: 9, padding: "none" } as const;
  const legacy = ClipTokenizer.fromFiles({
    vocab: JSON.stringify(vocab),
    merges: "#version: 0.2\n",
    addedTokens: '{"<new>": 4}',
  });
  assert.deepEqual([...legacy.encode("a<new>a", options)], [0, 2, 4, 2, 1]);
  const single = ClipTokenizer.fromFiles({
    tokenizer: JSON.stringify({
      model: { type: "BPE", vocab, merges: [] },
      added_tokens: [{ id: 4, content: "<new>", special: true }],
    }),
  });
  assert.deepEqual([...single.encode("a<new>a", options)], [0, 2, 4, 2, 1]);
});
