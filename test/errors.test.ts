/** How the text of an error is put together. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { HalftoneError } from "../src/errors.ts";

test("a message says what, where, what was found and expected, and the remedy", () => {
  const detail = {
    file: "a.safetensors",
    tensor: "x.weight",
    field: "shape",
    found: [2, 3],
    expected: "[3, 2]",
    remedy: "Fetch the file again.",
  };
  const error = new HalftoneError("tensor_shape_mismatch", "Cannot load the weight", detail);
  assert.equal(
    error.message,
    'Cannot load the weight (file "a.safetensors", tensor "x.weight", field "shape"): ' +
      "found [2,3], expected [3, 2]. Fetch the file again.",
  );
  assert.equal(error.detail, detail);
});

test("what is not known is left out", () => {
  assert.equal(new HalftoneError("closed", "Cannot go on").message, "Cannot go on");
  const found = new HalftoneError("invalid_argument", "Cannot use this", { found: 0 });
  assert.equal(found.message, "Cannot use this: found 0");
});

test("values from files are cut, and cannot command a terminal or turn text around", () => {
  const tensor = "\x1b[2Jx\u202e\n" + "y".repeat(500);
  const { message } = new HalftoneError("missing_tensor", "Cannot find", { tensor, found: tensor });
  assert.ok(!/[\p{Cc}\p{Cf}]/u.test(message), message);
  assert.ok(message.includes('"\\u{1b}[2Jx\\u{202e}\\u{a}yyy'));
  assert.ok(message.length < 500);
});
