/** The Unigram model on vocabularies small enough to check by hand, and against trying every division. */

import { test } from "node:test";
import assert from "node:assert/strict";
import { Unigram } from "../../src/tokenizers/unigram.ts";

const special: [string, number][] = [["<pad>", 0], ["</s>", 0], ["<unk>", 0]];

test("the most probable division wins, not the longest pieces", () => {
  const model = new Unigram([...special, ["ab", -1], ["c", -1], ["a", -5], ["bc", -1.5], [
    "abc",
    -9,
  ]], 2);
  assert.deepEqual(model.encode("abc"), [3, 4]);
  assert.deepEqual(model.encode(""), []);
});

test("neighbouring unknown characters are one unknown, pairs of surrogates one character", () => {
  const model = new Unigram([...special, ["a", -1], ["😀", -1]], 2);
  assert.deepEqual(model.encode("xya日本😁a😀😁"), [2, 3, 2, 3, 4, 2]);
  assert.equal(model.piece(4), "😀");
  assert.equal(model.piece(99), "");
});

/** The best score of all divisions of a word into pieces. */
function bestScore(word: string, scores: ReadonlyMap<string, number>): number {
  const best = [0];
  for (let end = 1; end <= word.length; end++) {
    const ways = best.map((score, start) =>
      score + (scores.get(word.slice(start, end)) ?? -Infinity)
    );
    best.push(Math.max(...ways));
  }
  return best[word.length];
}

test("random words have no better division than the one found", () => {
  let state = 3;
  const random = (below: number) =>
    ((state = (Math.imul(state, 1664525) + 1013904223) >>> 0) >>> 8) % below;
  const word = (length: number) => Array.from({ length }, () => "abcde"[random(5)]).join("");
  for (let round = 0; round < 200; round++) {
    const pieces = new Set([..."abcde", ...Array.from({ length: 12 }, () => word(2 + random(3)))]);
    const vocab = [...pieces].map((piece): [string, number] => [piece, -1 - random(1000) / 100]);
    const model = new Unigram([...special, ...vocab], 2);
    const scores = new Map(vocab);
    const text = word(1 + random(30));
    const found = model.encode(text).map((id) => model.piece(id));
    assert.equal(found.join(""), text);
    const score = found.reduce((sum, piece) => sum + scores.get(piece)!, 0);
    assert.ok(Math.abs(score - bestScore(text, scores)) < 1e-9, text);
  }
});
