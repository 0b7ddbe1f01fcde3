import assert from "node:assert/strict";
import { test } from "node:test";
import { failureOf } from "../../cli/failure.ts";
import { HalftoneError } from "../../src/errors.ts";

test("a HalftoneError becomes one line with its code", () => {
  const error = new HalftoneError("missing_file", "Cannot read\n  the file", { file: "a.json" });
  assert.deepEqual(failureOf(error), {
    line: 'error[missing_file]: Cannot read the file (file "a.json")',
    exitCode: 1,
  });
});

test("an aborted command ends with 130", () => {
  const errors = [new HalftoneError("aborted", "x"), new DOMException("x", "AbortError")];
  for (const error of errors) assert.equal(failureOf(error).exitCode, 130);
});

test("any other error is marked as internal", () => {
  assert.deepEqual(failureOf(new TypeError("x is\nnull")), {
    line: "error[internal]: x is null",
    exitCode: 1,
  });
});
