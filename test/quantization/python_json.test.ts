import { test } from "node:test";
import assert from "node:assert/strict";
import fc from "fast-check";
import {
  JsonNumber,
  type JsonValue,
  parseJsonKeepingNumbers,
  pythonFloat,
  pythonJson,
} from "../../src/quantization/python_json.ts";
import { readGolden } from "./support.ts";

test("floats are spelled as Python's repr spells them", () => {
  // Each pair is `repr(value)` of Python 3.11.
  const pairs: [number, string][] = [
    [6, "6.0"],
    [0, "0.0"],
    [-0, "-0.0"],
    [0.1, "0.1"],
    [1e-4, "0.0001"],
    [1e-5, "1e-05"],
    [1.5e-7, "1.5e-07"],
    [1e15, "1000000000000000.0"],
    [1e16, "1e+16"],
    [1.25e22, "1.25e+22"],
    [0.4833333492279053, "0.4833333492279053"],
    [0.16469192504882812, "0.16469192504882812"], // as near as ...13, and even
    [-0.16469192504882812, "-0.16469192504882812"],
    [0.00012345678901234567, "0.00012345678901234567"],
    [-123456.789, "-123456.789"],
    [5e-324, "5e-324"],
    [1.7976931348623157e308, "1.7976931348623157e+308"],
  ];
  for (const [value, text] of pairs) assert.equal(pythonFloat(value), text);
});

test("float32 values are spelled as Python spells them, ties included", async () => {
  const goldens = await readGolden<{ bits: number; text: string }[]>("python_floats.json");
  const [bits, value] = [new Uint32Array(1), new Float32Array(1)];
  assert.ok(goldens.some((golden) => golden.text !== String(valueOf(golden.bits))));
  for (const golden of goldens) assert.equal(pythonFloat(valueOf(golden.bits)), golden.text);

  function valueOf(pattern: number): number {
    bits[0] = pattern;
    new Uint8Array(value.buffer).set(new Uint8Array(bits.buffer));
    return value[0];
  }
});

test("a spelled float reads back as itself", () => {
  fc.assert(fc.property(fc.double({ noNaN: true, noDefaultInfinity: true }), (value) => {
    assert.ok(Object.is(Number(pythonFloat(value)), value), pythonFloat(value));
  }));
});

test("one line of JSON has Python's separators, and non-ASCII is escaped", () => {
  const value = { shape: [64, 128], dtype: "float32", name: "é", none: null, yes: true, empty: [] };
  const expected = '{"shape": [64, 128], "dtype": "float32", "name": "\\u00e9", "none": null, ' +
    '"yes": true, "empty": []}';
  assert.equal(pythonJson(value), expected);
});

test("indented JSON sorts its keys like json.dumps(indent=2, sort_keys=True)", () => {
  const value = { b: [1, 2], a: { d: {}, c: JsonNumber.float(6) } };
  const expected = '{\n  "a": {\n    "c": 6.0,\n    "d": {}\n  },\n  "b": [\n    1,\n    2\n  ]\n}';
  assert.equal(pythonJson(value, { indent: 2, sortKeys: true }), expected);
});

test("numbers keep their spelling from text to text", () => {
  const text = '{"a": 1.0, "b": 1e-06, "c": [-0.50, 12], "d": "1.0 \\" 2", "e": {"f": 1E5}}';
  assert.equal(pythonJson(parseJsonKeepingNumbers(text)), text);
});

test("any JSON value survives parsing and writing", () => {
  fc.assert(fc.property(fc.jsonValue(), (value) => {
    const text = pythonJson(parseJsonKeepingNumbers(JSON.stringify(value)) as JsonValue);
    assert.deepEqual(JSON.parse(text), JSON.parse(JSON.stringify(value)));
  }));
});

test("text that is no JSON is refused", () => {
  for (const text of ["", "{", "[1,]", "01", "{'a': 1}"]) {
    assert.throws(() => parseJsonKeepingNumbers(text), SyntaxError);
  }
});
