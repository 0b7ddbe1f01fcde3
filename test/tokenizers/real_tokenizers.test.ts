/**
 * FLUX.1's own tokenizers, where they are at hand: the vocabularies are public but no part of this repository.
 * Set HALFTONE_REAL_TOKENIZERS to a folder that has them in `tokenizer/` and `tokenizer_2/`.
 */

import { test } from "node:test";
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { ClipTokenizer } from "../../src/tokenizers/clip.ts";
import { T5Tokenizer } from "../../src/tokenizers/t5.ts";
import { readTokenizerFolder } from "./folder.ts";

const folder = process.env.HALFTONE_REAL_TOKENIZERS ?? "";
const skip = folder === "";
if (skip) console.log("skipping FLUX.1's own tokenizers: HALFTONE_REAL_TOKENIZERS is not set");

/** Published ids; an empty list means none is published. */
const PUBLISHED: [text: string, clip: string, t5: string][] = [
  [
    "A cat holding a sign that says hello world",
    "49406 320 2368 5050 320 2292 682 1563 3306 1002 49407",
    "71 1712 3609 3 9 1320 24 845 21820 296 1",
  ],
  [
    "  double  spaces\tand\nnewline ",
    "49406 3200 9006 537 1218 1148 49407",
    "1486 4856 11 126 747 1",
  ],
  [
    "Ünïcödé — “quotes” … ½ ① ﬁ",
    "",
    "3 14858 29 2 75 1872 3764 3 318 105 8270 15 7 153 3 233 209 2 357 209 361 1",
  ],
  ["日本語 emoji 😀", "49406 39121 44353 34002 508 16327 7334 49407", "3 2 3 15 51 21892 3 2 1"],
  ["", "49406 49407", "1"],
  ["3.14159 1,000", "", "1877 2534 27904 11668 1"],
  [
    "A photo of a CAT's don't we'll, 2 dogs!!",
    "49406 320 1125 539 320 2368 568 847 713 649 1342 267 273 3255 748 49407",
    "",
  ],
];

function tokenizers(): [ClipTokenizer, T5Tokenizer] {
  return [
    ClipTokenizer.fromFiles(readTokenizerFolder(join(folder, "tokenizer"))),
    T5Tokenizer.fromFiles(readTokenizerFolder(join(folder, "tokenizer_2"))),
  ];
}

const options = { maxLength: 5000, padding: "none" } as const;

test("FLUX.1's tokenizers give the published ids", { skip }, () => {
  const [clip, t5] = tokenizers();
  for (const [text, clipIds, t5Ids] of PUBLISHED) {
    if (clipIds) assert.equal(clip.encode(text, options).join(" "), clipIds, text);
    if (t5Ids) assert.equal(t5.encode(text, options).join(" "), t5Ids, text);
  }
});

test("FLUX.1's tokenizers give the ids of Transformers on random text", { skip }, () => {
  const [clip, t5] = tokenizers();
  const url = new URL("../goldens/tokenizers/real_texts.json", import.meta.url);
  const rows: [string, number[], number[]][] = JSON.parse(readFileSync(url, "utf8"));
  for (const [text, clipIds, t5Ids] of rows) {
    assert.deepEqual([...clip.encode(text, options)], clipIds, JSON.stringify(text));
    assert.deepEqual([...t5.encode(text, options)], t5Ids, JSON.stringify(text));
  }
});
