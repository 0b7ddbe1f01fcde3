/** SentencePiece's nmt_nfkc rules against the `tokenizers` library. */

import { test } from "node:test";
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { gunzipSync } from "node:zlib";
import { PrecompiledCharsmap } from "../../src/tokenizers/precompiled_charsmap.ts";

interface Goldens {
  texts: [text: string, normal: string][];
  characters_below: number;
  sha256: string;
}

function read(name: string): Uint8Array {
  return readFileSync(new URL(`../goldens/tokenizers/${name}`, import.meta.url));
}

const goldens: Goldens = JSON.parse(new TextDecoder().decode(read("charsmap.json")));
const charsmap = new PrecompiledCharsmap(gunzipSync(read("nmt_nfkc.charsmap.gz")));

test("every character below U+30000 has its normal form", () => {
  const hash = createHash("sha256");
  let lines = "";
  for (let code = 0; code < goldens.characters_below; code++) {
    if (code >= 0xd800 && code < 0xe000) continue;
    lines += `${charsmap.normalize(String.fromCodePoint(code))}\n`;
    if (lines.length > 50_000) hash.update(lines), lines = "";
  }
  hash.update(lines);
  assert.equal(hash.digest("hex"), goldens.sha256);
});

test("random texts have their normal forms, cluster by cluster", () => {
  assert.ok(goldens.texts.length >= 100);
  for (const [text, normal] of goldens.texts) {
    assert.equal(charsmap.normalize(text), normal, JSON.stringify(text));
  }
});

test("known replacements: ligatures, widths, fractions, spaces, line ends", () => {
  const known = [
    ["ﬁne ｆｕｌｌ ½ ① …", "fine full 1⁄2 1 ..."],
    ["a\tb\r\nc\u00a0d\u3000e", "a b c d e"],
    ["é\r\né", "é é"],
    ["e\u0301", "é"],
    ["", ""],
  ];
  for (const [text, normal] of known) assert.equal(charsmap.normalize(text), normal);
});

test("a blob whose trie does not fit is refused", () => {
  const blob = gunzipSync(read("nmt_nfkc.charsmap.gz"));
  for (const length of [0, 3, 4, 8, 1000]) {
    assert.throws(() => new PrecompiledCharsmap(blob.subarray(0, length)), RangeError);
  }
});

test("a damaged trie ends in no replacement, not in a crash", () => {
  const blob = gunzipSync(read("nmt_nfkc.charsmap.gz"));
  let state = 7;
  for (let i = 4; i < blob.length; i++) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    if (state % 50 === 0) blob[i] = state >>> 24;
  }
  const damaged = new PrecompiledCharsmap(blob);
  for (const [text] of goldens.texts) assert.equal(typeof damaged.normalize(text), "string");
});
