import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { GGUF_MIXES, type GgufMix, ggufTypeFor } from "../../src/quantization/gguf_mixes.ts";
import { ggufTypeInfo } from "../../src/quantization/gguf_types.ts";

interface MixRecord {
  readonly mix: GgufMix;
  readonly layers: number;
  readonly columns: number;
  /** By part of a layer: the type of all layers, or one per layer. */
  readonly types: Readonly<Record<string, string | readonly string[]>>;
}

const RECORDS: readonly MixRecord[] = JSON.parse(
  readFileSync(new URL("../goldens/gguf/t5_mixes.json", import.meta.url), "utf8"),
);

const TRANSFORMERS: Readonly<Record<string, string>> = {
  attn_q: "layer.0.SelfAttention.q",
  attn_k: "layer.0.SelfAttention.k",
  attn_v: "layer.0.SelfAttention.v",
  attn_o: "layer.0.SelfAttention.o",
  ffn_gate: "layer.1.DenseReluDense.wi_0",
  ffn_up: "layer.1.DenseReluDense.wi_1",
  ffn_down: "layer.1.DenseReluDense.wo",
};

/** llama.cpp's and Transformers' name. */
function namesOf(part: string, layer: number): string[] {
  if (part === "token_embd") return ["token_embd.weight", "shared.weight"];
  return [
    `enc.blk.${layer}.${part}.weight`,
    `encoder.block.${layer}.${TRANSFORMERS[part]}.weight`,
  ];
}

for (const { mix, layers, columns, types } of RECORDS) {
  test(`${mix} gives ${layers} layers of T5 with ${columns} columns llama.cpp's types`, () => {
    for (const [part, expected] of Object.entries(types)) {
      for (let layer = 0; layer < layers; layer++) {
        const wanted = typeof expected === "string" ? expected : expected[layer];
        for (const name of namesOf(part, layer)) {
          const type = ggufTypeFor(mix, { name, columns, layers });
          // Where no blocks fit, the matrix stays in 16 bits.
          const fits = columns % ggufTypeInfo(type).elements === 0;
          assert.equal(fits ? type : "F16", wanted, name);
        }
      }
    }
  });
}

test("there are records of every mix that llama.cpp knows for T5", () => {
  const recorded = new Set(RECORDS.map(({ mix }) => mix));
  const others = (Object.keys(GGUF_MIXES) as GgufMix[]).filter((mix) => !recorded.has(mix));
  assert.deepEqual(others, ["Q3_K", "Q4_K", "Q5_K", "MXFP4", "NVFP4"]);
});
