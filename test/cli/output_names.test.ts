import assert from "node:assert/strict";
import { test } from "node:test";
import { outputNames } from "../../cli/output_names.ts";

test("one image keeps the name it was given", () => {
  assert.deepEqual(outputNames("pictures/out.png", 1), ["pictures/out.png"]);
});

test("several images are numbered before the extension", () => {
  assert.deepEqual(outputNames("out.png", 3), ["out-0.png", "out-1.png", "out-2.png"]);
  assert.deepEqual(outputNames("a.b/out", 2), ["a.b/out-0", "a.b/out-1"]);
  assert.deepEqual(outputNames("a.b/.hidden", 2), ["a.b/.hidden-0", "a.b/.hidden-1"]);
});
