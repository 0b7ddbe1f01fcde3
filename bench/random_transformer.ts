/** Writes a Flux transformer of any size with random bfloat16 weights. */

import type { Config } from "../src/io/config.ts";
import { type NamedTensor, writeCheckpoint } from "../src/io/write_checkpoint.ts";
import { FluxTransformer2DModel } from "../src/models/flux_transformer.ts";
import { Graph, type Weight, type WeightInfo } from "../src/ops/graph.ts";
import type { WeightArrangement } from "../src/plan/plan.ts";
import { HostTensor } from "../src/tensor/host_tensor.ts";
import { elementCount, type Shape } from "../src/tensor/shape.ts";

/** Learns every weight's shape by letting the model ask for it. */
class ShapeRecorder extends Graph {
  readonly shapes: Map<string, Shape>;

  constructor() {
    const shapes = new Map<string, Shape>();
    super("shapes", { lookup: (name) => infoOf(shapes.get(name)) });
    this.shapes = shapes;
  }

  override weight(name: string, shape: Shape, arrangement?: WeightArrangement): Weight {
    this.shapes.set(name, shape);
    return super.weight(name, shape, arrangement);
  }
}

function infoOf(shape: Shape | undefined): WeightInfo | undefined {
  const format = { kind: "dense", dtype: "bfloat16" } as const;
  return shape && { shape, format, activations: { kind: "float" } };
}

/** The weights that a transformer of this config reads. */
export function transformerShapes(config: Config): ReadonlyMap<string, Shape> {
  const model = new FluxTransformer2DModel(config);
  const recorder = new ShapeRecorder();
  model.captureModulation(recorder, { steps: 1 });
  model.captureDenoise(recorder, { height: 1, width: 1, textTokens: 1 });
  return recorder.shapes;
}

/** Writes config.json and the weights into a folder. */
export async function writeRandomTransformer(folder: string, config: Config): Promise<void> {
  await writeCheckpoint(folder, config, randomTensors(transformerShapes(config)));
}

function* randomTensors(shapes: ReadonlyMap<string, Shape>): Generator<NamedTensor> {
  let state = 0x9e3779b9;
  const random = (): number => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return state;
  };
  for (const [name, shape] of shapes) {
    const levels = levelsOf(name, shape);
    const values = new Uint16Array(elementCount(shape));
    for (let at = 0; at < values.length; at += 4) {
      const bits = random();
      values[at] = levels[bits & 255]!;
      values[at + 1] = levels[bits >>> 8 & 255]!;
      values[at + 2] = levels[bits >>> 16 & 255]!;
      values[at + 3] = levels[bits >>> 24]!;
    }
    yield { name, tensor: new HostTensor("bfloat16", shape, new Uint8Array(values.buffer)) };
  }
}

/** 256 bfloat16 values, evenly spread: around 1 for norms, else of variance 1 / inputs. */
function levelsOf(name: string, shape: Shape): Uint16Array {
  const isNorm = /\.norm_(added_)?[qk]\.weight$/.test(name);
  const [center, reach] = isNorm ? [1, 0.1] : [0, Math.sqrt(3 / shape.at(-1)!)];
  const floats = Float32Array.from(
    { length: 256 },
    (_, level) => center + reach * (level - 127.5) / 127.5,
  );
  return Uint16Array.from(new Uint32Array(floats.buffer), (bits) => bits >>> 16);
}
