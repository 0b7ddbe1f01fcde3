/** Single layers by name, for timing: linear, attention, convolution. */

import type { Graph, Tensor } from "../src/ops/graph.ts";
import type { oneProgram } from "./one_program.ts";
import { integerCases, randomWeight, type WeightCase, weightCases } from "./weight_cases.ts";

type Operations = typeof import("../src/ops/builders.ts");
type Weights = NonNullable<Parameters<typeof oneProgram>[1]>;

/** What is timed: numbers for inputs, weights, and a graph that reads them and gives "y". */
export interface Case {
  readonly inputs: Readonly<Record<string, readonly number[]>>;
  readonly weights: Weights;
  /** Operations of the products in a run. */
  readonly work: number;
  readonly capture: (graph: Graph, operations: Operations, inputs: Tensor[]) => Tensor[];
}

const FLOAT: WeightCase = {
  name: "float32",
  format: { kind: "dense", dtype: "float32" },
  activations: { kind: "float" },
};

const CASES: Readonly<Record<string, (sizes: string, kind: string) => Case>> = {
  linear(sizes, kind) {
    const [m, k, ...widths] = sizes.split(/[x+]/).map(Number) as [number, number, ...number[]];
    const found = [...weightCases(k), ...integerCases(k)].find(({ name }) => name === kind);
    if (!found) throw new Error(`no weight case is called ${kind}`);
    const weights = widths.map((n, index) => [`w${index}`, weightOf([n, k], found)] as const);
    return {
      inputs: { x: [m, k] },
      weights: Object.fromEntries(weights),
      work: 2 * m * k * widths.reduce((sum, n) => sum + n, 0),
      capture: (graph, { linear }, [x]) =>
        widths.map((n, index) => linear(x!, graph.weight(`w${index}`, [n, k]))),
    };
  },
  attention(sizes, kind) {
    const [tokens, heads, size] = sizes.split("x").map(Number) as [number, number, number];
    const shape = [tokens, heads * size];
    const options = {
      heads,
      scale: 1 / Math.sqrt(size),
      ...kind === "int8" && { qkDtype: kind } as const,
    };
    return {
      inputs: { q: shape, k: shape, v: shape },
      weights: {},
      work: 4 * tokens * tokens * heads * size,
      capture: (_, { attention }, [q, k, v]) => [attention(q!, k!, v!, options)],
    };
  },
  conv2d(sizes, kind) {
    const [height, width, channels, out] = sizes.split("x").map(Number) as number[];
    const shape = [out!, 3, 3, channels!];
    const isEnlarged = kind === "enlarged";
    return {
      inputs: { x: [height!, width!, channels!] },
      weights: { w: weightOf(shape, FLOAT) },
      work: 18 * height! * width! * channels! * out! * (isEnlarged ? 4 : 1),
      capture: (graph, { conv2d, upsampleNearest2x }, [x]) => {
        const picture = isEnlarged ? upsampleNearest2x(x!) : x!;
        return [conv2d(picture, graph.weight("w", shape), undefined, { kernel: 3, padding: 1 })];
      },
    };
  },
};

function weightOf(shape: number[], { format, activations }: WeightCase): Weights[string] {
  return { info: { shape, format, activations }, stored: randomWeight(shape, format) };
}

/**
 * The case of a name: linear:MxKxN[+N...]:WEIGHT, all layers over the same x, WEIGHT named in weight_cases.ts;
 * attention:TOKENSxHEADSxSIZE[:int8]; or conv2d:HEIGHTxWIDTHxCHANNELSxOUT[:enlarged], 3 x 3.
 */
export function kernelCase(name: string): Case {
  const [op = "", sizes = "", kind = ""] = name.split(":");
  const make = CASES[op];
  if (!make) throw new Error(`no case is called ${name}`);
  return make(sizes, kind);
}
