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

test("what the library calls an option is named as the command line calls it", () => {
  const lineOf = (field: string, file?: string) =>
    failureOf(new HalftoneError("invalid_argument", "Cannot plan", { field, file })).line;
  const names = {
    width: "--width",
    numInferenceSteps: "--steps",
    maxSequenceLength: "--max-sequence-length",
    prompt2: "--prompt-2",
    textEncoder2: "--text-encoder-2",
    quantizationConfig: "--quantize",
    "--quantize": "--quantize",
    promptEmbeds: "promptEmbeds",
    toString: "toString",
  };
  for (const [field, option] of Object.entries(names)) {
    assert.equal(lineOf(field), `error[invalid_argument]: Cannot plan (field "${option}")`);
  }
  assert.match(lineOf("width", "config.json"), /field "width"/);
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
