import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import {
  configBoolean,
  configNumber,
  configNumbers,
  configString,
  configStrings,
} from "../../src/io/config.ts";
import { JsonFault, parseStrictJson } from "../../src/io/json.ts";
import { rejects } from "./support.ts";

const LAYERS = { default: 19, min: 1, max: 256 };

test("a number is taken from the config, or from the default when absent or null", () => {
  assert.equal(configNumber({ num_layers: 2 }, "num_layers", LAYERS), 2);
  assert.equal(configNumber({}, "num_layers", LAYERS), 19);
  assert.equal(configNumber({ num_layers: null }, "num_layers", LAYERS), 19);
  assert.equal(configNumber({ shift: 1.5 }, "shift", { integer: false }), 1.5);
  assert.equal(configNumber({ n: 256 }, "n", LAYERS), 256);
  assert.equal(configNumber({ n: 1 }, "n", LAYERS), 1);
});

const ABSURD: [string, unknown][] = [
  ["above the limit", 257],
  ["zero", 0],
  ["negative", -1],
  ["a fraction", 1.5],
  ["huge", 1e300],
  ["2^53", 2 ** 53],
  ["a string", "19"],
  ["a boolean", true],
  ["a list", [19]],
  ["an object", {}],
  ["infinite", Infinity],
  ["not a number", NaN],
];

for (const [name, value] of ABSURD) {
  test(`a number of layers that is ${name} is refused, naming the key`, async () => {
    const error = await rejects(
      () => configNumber({ num_layers: value }, "num_layers", LAYERS),
      "invalid_config",
      /an integer from 1 to 256/,
    );
    assert.equal(error.detail.field, "num_layers");
  });
}

test("a key that is required and absent is refused", async () => {
  await rejects(() => configNumber({}, "width", { min: 1 }), "invalid_config", /found "nothing"/);
  await rejects(() => configString({}, "type"), "invalid_config");
  await rejects(() => configBoolean({}, "flag"), "invalid_config");
  await rejects(() => configNumbers({}, "axes"), "invalid_config");
});

test("booleans, strings and lists are checked", async () => {
  const config = { flag: false, kind: "silu", axes: [16, 56, 56], names: ["a", "b"] };
  assert.equal(configBoolean(config, "flag", true), false);
  assert.equal(configBoolean({}, "flag", true), true);
  assert.equal(configString(config, "kind", { choices: ["silu", "gelu"] }), "silu");
  assert.deepEqual(configNumbers(config, "axes", { min: 2, max: 256 }), [16, 56, 56]);
  assert.deepEqual(configNumbers({}, "axes", { default: [1] }), [1]);
  assert.deepEqual(configStrings(config, "names"), ["a", "b"]);
  await rejects(() => configBoolean({ flag: 1 }, "flag"), "invalid_config", /true or false/);
  await rejects(
    () => configString(config, "kind", { choices: ["relu"] }),
    "invalid_config",
    /relu/,
  );
  await rejects(() => configNumbers(config, "axes", { max: 20 }), "invalid_config", /axes\[1\]/);
  await rejects(
    () => configNumbers(config, "axes", { maxLength: 2 }),
    "invalid_config",
    /at most 2/,
  );
  await rejects(() => configNumbers({ axes: [null] }, "axes"), "invalid_config");
  await rejects(() => configStrings({ names: [1] }, "names"), "invalid_config");
});

test("strict JSON gives what JSON.parse gives for any value without equal keys", () => {
  fc.assert(fc.property(fc.json({ maxDepth: 4 }), (text) => {
    assert.deepEqual(parseStrictJson(text), JSON.parse(text));
    assert.deepEqual(parseStrictJson(JSON.stringify(JSON.parse(text), null, 2)), JSON.parse(text));
  }));
});

test("strict JSON refuses any object with a key twice, however deep and however spelled", () => {
  const escaped = (key: string) =>
    Array.from(key, (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, "0")}`).join("");
  fc.assert(fc.property(fc.string({ maxLength: 5 }), fc.json({ maxDepth: 2 }), (key, value) => {
    const ascii = key.replaceAll(/[^ -~]/g, "x");
    const text = `[{"x":[{${JSON.stringify(ascii)}:${value},"${escaped(ascii)}":${value}}]}]`;
    assert.throws(() => parseStrictJson(text), JsonFault);
  }));
});

test("equal keys in different objects are fine", () => {
  assert.deepEqual(parseStrictJson('{"a":{"a":1},"b":[{"a":2},{"a":3}]}'), {
    a: { a: 1 },
    b: [{ a: 2 }, { a: 3 }],
  });
});

test("text that looks like keys inside strings is no key", () => {
  const value = { a: '","a":"', b: "{", c: '\\"', d: ["a", "a", ":"] };
  assert.deepEqual(parseStrictJson(JSON.stringify(value)), value);
});
