/** What FLUX.1's transformer takes to round its activations, and scratch: encoded, not run, so no device or stand-in is needed. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { fluxConfig, randomTransformer } from "../../bench/random_transformer.ts";
import { ConstantPool } from "../../src/backends/cuda/constant_pool.ts";
import type { Products } from "../../src/backends/cuda/cuda_step.ts";
import { encodePlan, measurePlan } from "../../src/backends/cuda/encode.ts";
import { RoundedRegion } from "../../src/backends/cuda/rounded_region.ts";
import { Graph } from "../../src/ops/graph.ts";
import { buildPlan } from "../../src/plan/build.ts";

/** Tokens of a picture, more than layers of few rows have. */
const SIZES = { height: 10, width: 10, textTokens: 70 };
const PRODUCTS: Products = {
  precision: "bfloat16",
  library: { multipliesFloat8: true, prepare: () => null },
  dnn: null,
};

/** How often kernels occur in a step of one double-stream and one single-stream block. */
async function kernelsOf(format: string): Promise<(name: RegExp) => number> {
  const { model, weights } = await randomTransformer(fluxConfig(1, 1, 1), format);
  const graph = new Graph("denoise", weights.catalog);
  model.captureDenoise(graph, SIZES);
  const plan = buildPlan(graph, { supports: () => true });
  const { steps } = encodePlan(plan, {
    arena: 0,
    stepScratch: 0,
    fault: 0,
    weights: { unit: () => 0 },
    isExactIn: () => false,
    constants: new ConstantPool(0),
    products: PRODUCTS,
    rounded: new RoundedRegion(plan, PRODUCTS, 0),
    hasSignedCodes: true,
  });
  const names = steps.flat().map((launch) => launch.kind === "kernel" ? launch.kernel : "");
  return (name) => names.filter((kernel) => name.test(kernel)).length;
}

// Layers: two embedders, 6 projections, 2 outputs and 4 of MLPs in the double-stream block; 3 projections, an MLP and
// an output in the single-stream block; the last projection. Modulation is a plan of its own.
const LAYERS = 2 + 6 + 2 + 4 + 5 + 1;

test("of FLUX.1's layers over int8 or float8, 5 in 20 have kernels of their own that round", async () => {
  for (const format of ["torchao:int8dq", "torchao:float8dq_e4m3_row"]) {
    const count = await kernelsOf(format);
    assert.equal(count(/^linear_(int8|float8_e4m3fn)$/), LAYERS, format);
    // Norms before projections and MLPs, and the last one; the first layers of MLPs; embedders and what attention makes.
    assert.deepEqual(
      [/^row_norm_codes$/, /^end_\w+_codes$/, /^round_rows$/, /^row_norm$/].map(count),
      [6, 2, 5, 0],
      format,
    );
  }
});

test("of FLUX.1's step in 16 bits only the embedders' inputs are rounded apart, whatever the weights' format", async () => {
  for (const format of ["bitsandbytes:nf4", "torchao:int8wo", "gguf:Q4_K"]) {
    const count = await kernelsOf(format);
    assert.deepEqual(
      [/^row_norm_bfloat16$/, /^row_norm$/, /^narrow_bfloat16$/].map(count),
      [6, 0, 2],
      format,
    );
  }
});

test("what a step needs is the same whatever the libraries can do", async () => {
  const prepared = { problem: {}, isWarm: true } as never;
  for (const format of ["bitsandbytes:nf4", "torchao:int8dq", "bitsandbytes:int8"]) {
    const { model, weights } = await randomTransformer(fluxConfig(1, 1, 1), format);
    const graph = new Graph("denoise", weights.catalog);
    model.captureDenoise(graph, SIZES);
    const plan = buildPlan(graph, { supports: () => true });
    const products: Products = {
      precision: "bfloat16",
      library: { multipliesFloat8: true, prepare: () => prepared },
      dnn: { hasAttention: true, prepare: () => prepared },
    };
    const rounded = new RoundedRegion(plan, products, 0);
    const constants = new ConstantPool(0);
    const { stepScratchBytes } = encodePlan(plan, {
      ...{ arena: 0, stepScratch: 0, fault: 0, products, rounded, constants },
      weights: { unit: () => 0 },
      isExactIn: () => true,
      hasSignedCodes: true,
    });
    const measured = measurePlan(plan, products, false);
    const found = { stepScratchBytes, constantBytes: constants.bytes, roundedBytes: rounded.bytes };
    assert.deepEqual(found, measured, format);
  }
});

test("LLM.int8() looks for outliers once for all layers that read the same", async () => {
  const count = await kernelsOf("bitsandbytes:int8");
  assert.deepEqual(
    [/^llm_int8_end$/, /^llm_int8_mark$/, /^round_rows$/, /^row_norm$/].map(count),
    [LAYERS, 13, 13, 6],
  );
});
