/** copy: random chains of views, parts of a larger output, repeats, ids. */

import { copy, upsampleNearest2x } from "../../../src/ops/builders.ts";
import type { Tensor } from "../../../src/ops/graph.ts";
import { HostTensor } from "../../../src/tensor/host_tensor.ts";
import { elementCount } from "../../../src/tensor/shape.ts";
import { type ConformanceCase, floats } from "./cases.ts";
import { Random, randomValues } from "./random.ts";
import * as virtual from "./virtual_array.ts";

/** All cases of copy. */
export function copyCases(): ConformanceCase[] {
  const chains = Array.from({ length: 120 }, (_, seed) => viewChain(seed));
  return [...chains, concatCase(0), concatCase(1), concatCase(2), upsampleCase(), idsCase()];
}

type View = { tensor: Tensor; expected: virtual.VirtualArray };
type Step = (view: View) => View;

/** A random tensor seen through up to four random views. */
function viewChain(seed: number): ConformanceCase {
  const random = new Random(1000 + seed);
  const rank = random.integer(1, 6);
  const shape = Array.from({ length: rank }, () => random.pick([1, 2, 3, 4, 5, 7, 9]))
    .map((size, axis) => rank > 4 && axis > 1 ? Math.min(size, 3) : size);
  const values = randomValues(random, elementCount(shape), shape[rank - 1], "special");
  const steps: Step[] = [];
  let expected = virtual.fromValues(values, shape);
  for (let i = random.integer(0, 4); i > 0; i--) {
    const step = randomStep(random, expected.shape);
    steps.push(step);
    expected = step({ tensor: null as unknown as Tensor, expected }).expected;
  }
  return {
    name: `views ${seed} of [${shape}] as [${expected.shape}]`,
    op: "copy",
    budget: "copy",
    inputs: { x: floats(values, shape) },
    build: (_, { x }) => {
      const start = { tensor: x, expected: virtual.fromValues(values, shape) };
      return copy(steps.reduce((view, step) => step(view), start).tensor);
    },
    expected: () => virtual.toValues(expected),
  };
}

/** A random view; without a tensor it transforms the expectation alone. */
function randomStep(random: Random, shape: readonly number[]): Step {
  const axis = random.integer(0, shape.length - 1);
  const kind = random.pick(["slice", "permute", "broadcast"] as const);
  if (kind === "slice") {
    const start = random.integer(0, shape[axis] - 1);
    const end = random.integer(start + 1, shape[axis]);
    return ({ tensor, expected }) => ({
      tensor: tensor && tensor.slice(axis, start, end),
      expected: virtual.slice(expected, axis, start, end),
    });
  }
  if (kind === "permute") {
    const axes = shape.map((_, i) => i);
    for (let i = axes.length - 1; i > 0; i--) {
      const j = random.integer(0, i);
      [axes[i], axes[j]] = [axes[j], axes[i]];
    }
    return ({ tensor, expected }) => ({
      tensor: tensor && tensor.permute(axes),
      expected: virtual.permute(expected, axes),
    });
  }
  const repeated = shape.map((size) => size === 1 ? random.pick([1, 2, 3]) : size);
  const target = shape.length < 5 && random.uniform() < 0.5 ? [2, ...repeated] : repeated;
  return ({ tensor, expected }) => ({
    tensor: tensor && tensor.broadcastTo(target),
    expected: virtual.broadcastTo(expected, target),
  });
}

/** Copies side by side into one output along an axis. */
function concatCase(axis: number): ConformanceCase {
  const random = new Random(2000 + axis);
  const shapes = [3, 1, 4].map((length) => [3, 5, 7].with(axis, length));
  const parts = shapes.map((shape) => ({
    shape,
    values: randomValues(random, elementCount(shape), 7, "special"),
  }));
  const shape = [3, 5, 7].with(axis, 8);
  return {
    name: `side by side along axis ${axis}`,
    op: "copy",
    budget: "copy",
    inputs: Object.fromEntries(parts.map((p, i) => [`x${i}`, floats(p.values, p.shape)])),
    build: (graph, inputs) => {
      const output = graph.allocate(shape);
      [0, 3, 4].forEach((start, i) => {
        const part = output.slice(axis, start, start + shapes[i][axis]);
        graph.add("copy", {}, [inputs[`x${i}`]], part);
      });
      return output;
    },
    expected: () => {
      const arrays = parts.map((p) => virtual.fromValues(p.values, p.shape));
      return virtual.toValues({
        shape,
        at: (index) => {
          const part = index[axis] < 3 ? 0 : index[axis] < 4 ? 1 : 2;
          return arrays[part].at(index.with(axis, index[axis] - [0, 3, 4][part]));
        },
      });
    },
  };
}

/** Nearest upsampling is a copy of a repeating view. */
function upsampleCase(): ConformanceCase {
  const random = new Random(2100);
  const values = randomValues(random, 3 * 4 * 5, 5);
  return {
    name: "nearest upsampling of [3, 4, 5]",
    op: "copy",
    budget: "copy",
    inputs: { x: floats(values, [3, 4, 5]) },
    build: (_, { x }) => upsampleNearest2x(x),
    expected: () =>
      virtual.toValues({
        shape: [6, 8, 5],
        at: ([y, x, c]) => values[(Math.floor(y / 2) * 4 + Math.floor(x / 2)) * 5 + c],
      }),
  };
}

/** int32 values move unchanged, those beyond float32's integers too. */
function idsCase(): ConformanceCase {
  const ids = Int32Array.of(5, -1, 2147483647, 16777217, 0, 42);
  return {
    name: "int32 [2, 3] transposed",
    op: "copy",
    budget: "copy",
    inputs: { ids: HostTensor.fromInt32(ids, [2, 3]) },
    build: (graph, inputs) => {
      const view = inputs.ids.permute([1, 0]);
      return graph.add("copy", {}, [view], graph.allocate(view.shape, "int32"));
    },
    expected: () => [5, 16777217, -1, 0, 2147483647, 42],
  };
}
