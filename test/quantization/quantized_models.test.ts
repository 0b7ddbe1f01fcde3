/** Models over checkpoints that bitsandbytes quantized, against what the library's own layers give. */

import { test } from "node:test";
import assert from "node:assert/strict";
import type { Backend } from "../../src/backends/backend.ts";
import { createBackend } from "../../src/backends/select.ts";
import { readConfig } from "../../src/io/checkpoint.ts";
import { FluxTransformer2DModel } from "../../src/models/flux_transformer.ts";
import { T5EncoderModel } from "../../src/models/t5.ts";
import { modelTime, timestepEmbedding } from "../../src/models/timestep_embedding.ts";
import { Graph } from "../../src/ops/graph.ts";
import { buildPlan } from "../../src/plan/build.ts";
import { type ComponentWeights, openWeights } from "../../src/quantization/weights.ts";
import { HostTensor } from "../../src/tensor/host_tensor.ts";
import { loadTensors, relativeError, type Tensors } from "../models/run_model.ts";
import { GOLDENS, withCheckpoints } from "./support.ts";

type Inputs = Readonly<Record<string, HostTensor>>;

/** Captures, plans and runs one forward; returns one output. */
async function run(
  backend: Backend,
  weights: ComponentWeights,
  capture: (graph: Graph) => void,
  inputs: Inputs,
  output: string,
): Promise<HostTensor> {
  const graph = new Graph("test", weights.catalog);
  capture(graph);
  const plan = buildPlan(graph, { supports: (op) => backend.supports(op) });
  const set = await backend.loadWeights(plan.weights, weights.source);
  const program = await backend.compile(plan, set);
  for (const [name, tensor] of Object.entries(inputs)) program.write(name, tensor);
  await program.run();
  return program.read(output);
}

async function withWeights(
  folder: string,
  linearNames: (name: string) => boolean,
  action: (weights: ComponentWeights) => Promise<void>,
): Promise<void> {
  const config = await readConfig(folder);
  await withCheckpoints([folder], async (checkpoint) => {
    await action(await openWeights(checkpoint, { config, linearNames }));
  });
}

async function velocity(
  backend: Backend,
  model: FluxTransformer2DModel,
  weights: ComponentWeights,
  golden: Tensors,
): Promise<Float32Array> {
  const [time, guidance] = ["timestep", "guidance"].map((name) => golden.get(name)!.toFloat32()[0]);
  const modulation = await run(
    backend,
    weights,
    (graph) => model.captureModulation(graph, { steps: 1 }),
    {
      timestep: timestepEmbedding([modelTime(time * 1000)]),
      guidance: timestepEmbedding([Math.fround(guidance * 1000)]),
      pooled: golden.get("pooled_projections")!,
    },
    "modulation",
  );
  const latents = golden.get("hidden_states")!.reshape([12, 16]);
  const text = golden.get("encoder_hidden_states")!.reshape([7, 32]);
  const sizes = { height: 4, width: 3, textTokens: 7 };
  const capture = (graph: Graph) => model.captureDenoise(graph, sizes);
  const result = await run(backend, weights, capture, { latents, text, modulation }, "velocity");
  return result.toFloat32();
}

/**
 * 4-bit: float32 arithmetic in another order. int8: an activation next to a tie falls to the other side
 * after the least difference, and one code is 1/127 of its row's largest value. The library's own
 * velocity moves by 1.1e-2 when its approximation of 1/127^2 (1.8e-5 off) is replaced by the exact number.
 */
const TOLERANCES = { nf4: 1e-5, nf4_double: 1e-5, fp4: 1e-5, int8: 2e-2 };

for (const name of ["reference", "wasm"] as const) {
  for (const [scheme, tolerance] of Object.entries(TOLERANCES)) {
    const folder = `${GOLDENS}bitsandbytes/models/${scheme}`;

    test(`a ${scheme} transformer gives bitsandbytes' velocity on ${name}`, async () => {
      const golden = loadTensors(`${folder}/golden.safetensors`);
      const model = new FluxTransformer2DModel(await readConfig(`${folder}/transformer`));
      const backend = await createBackend({ backend: name });
      const linearNames = (weight: string) => model.isLinearWeight(weight);
      await withWeights(`${folder}/transformer`, linearNames, async (weights) => {
        const found = await velocity(backend, model, weights, golden);
        const error = relativeError(found, golden.get("velocity")!.toFloat32());
        assert.ok(error < tolerance, `relative error ${error}`);
      });
      await backend.close();
    });

    test(`a ${scheme} T5 gives bitsandbytes' states on ${name}`, async () => {
      const golden = loadTensors(`${folder}/golden.safetensors`);
      const model = new T5EncoderModel(await readConfig(`${folder}/text_encoder_2`));
      const backend = await createBackend({ backend: name });
      const ids = golden.get("input_ids")!.toFloat32();
      const linearNames = (weight: string) => model.isLinearWeight(weight);
      await withWeights(`${folder}/text_encoder_2`, linearNames, async (weights) => {
        const capture = (graph: Graph) => model.captureEncode(graph, { tokens: ids.length });
        const inputs = { ids: HostTensor.fromInt32(Int32Array.from(ids)) };
        const states = await run(backend, weights, capture, inputs, "states");
        const expected = golden.get("last_hidden_state")!.toFloat32();
        const error = relativeError(states.toFloat32(), expected);
        assert.ok(error < tolerance, `relative error ${error}`);
      });
      await backend.close();
    });
  }
}
