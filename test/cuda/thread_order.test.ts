/**
 * The order of threads between barriers, and of blocks: no byte may depend on it, in any kernel. What a barrier is missing
 * for does, because shared memory is NaN when a block starts and threads run one after another.
 */

import assert from "node:assert/strict";
import { test } from "node:test";
import { KERNEL_NAMES, type KernelName } from "../../src/backends/cuda/kernel_names.ts";
import {
  createCudaBackend,
  type CudaBackend,
  type CudaBackendOptions,
} from "../../src/backends/cuda/mod.ts";
import { affine, attention, headNormRope } from "../../src/ops/builders.ts";
import { Graph, type Tensor } from "../../src/ops/graph.ts";
import { HostTensor } from "../../src/tensor/host_tensor.ts";
import { type ConformanceCase, planCase, runCase } from "../backends/conformance/cases.ts";
import { Random } from "../backends/conformance/random.ts";
import { FAMILIES } from "../backends/conformance/suite.ts";
import { denseWeight, TestWeights } from "../backends/conformance/weights.ts";
import { block, CODE_MODES, runCodes } from "./code_graphs.ts";
import { dnnCases } from "./dnn_cases.ts";
import { float8Cases } from "./float8_cases.ts";
import { int8Cases, llmInt8Cases } from "./int8_cases.ts";
import { launched } from "./launched.ts";
import { usesLibraries } from "./library_ops.ts";
import { precisionCases } from "./precision_cases.ts";
import { openStandIn, type StandIn, THREAD_ORDERS } from "./stand_in.ts";
import { lackedByCuda } from "./unsupported_cases.ts";

const standIn = openStandIn("thread_order");
if (typeof standIn === "string") {
  console.log(`cuda: the order of threads is not tried: ${standIn}`);
  test("cuda on the stand-in: the order of threads", { skip: standIn }, () => {});
} else {
  registerAll(standIn);
}

/** Something that runs kernels; gives the bytes of what comes out. */
type Work = () => Promise<unknown>;

function registerAll(standIn: StandIn): void {
  const ran = new Map(KERNEL_NAMES.map((name) => [name, new Set<string>()]));

  /** Runs the work in every order, and notes which kernels ran. */
  async function assertSame(name: string, work: Work): Promise<void> {
    let expected: unknown;
    for (const [order, threadOrder] of Object.entries(THREAD_ORDERS)) {
      const before = KERNEL_NAMES.map(standIn.launchesOf);
      standIn.set({ threadOrder });
      const bytes = await work();
      expected ??= bytes;
      assert.deepEqual(bytes, expected, `${name}, ${order}`);
      KERNEL_NAMES.forEach((kernel, i) => {
        if (standIn.launchesOf(kernel) > before[i]!) ran.get(kernel)!.add(order);
      });
    }
    standIn.set({ threadOrder: THREAD_ORDERS.numbered });
  }

  for (const { name, options, cases } of groups()) {
    test(`the order of threads changes no byte of cases ${name}`, async () => {
      const backend = await createCudaBackend({ ...standIn.libraries, ...options });
      try {
        for (const testCase of await covering(backend, cases())) {
          const work = async () => (await runCase(backend, testCase)).bytes;
          await assertSame(`${testCase.op}: ${testCase.name}`, work);
        }
      } finally {
        await backend.close();
      }
    });
  }

  for (const matmulPrecision of ["float16", "bfloat16"] as const) {
    const options = { ...standIn.libraries, matmulPrecision };
    test(`the order of threads changes no byte of rows and heads in ${matmulPrecision}`, async () => {
      const layers: Work = async () => (await runCodes(options, { kind: "float" }, block)).values;
      await assertSame("layers", layers);
      await assertSame("heads", () => runHeads(options));
    });
  }

  for (const refuseProducts of [0, 3]) {
    const by = refuseProducts ? "kernels of our own" : "the library";
    test(`the order of threads changes no byte of codes multiplied by ${by}`, async () => {
      const options = { ...standIn.libraries, onWarning: () => {} };
      const beforeLoading = () => standIn.set({ refuseProducts });
      for (const { name, mode } of CODE_MODES.filter(({ kernels: [inNorm] }) => inNorm > 0)) {
        const work: Work = async () => {
          standIn.set({ refuseProducts: 0 }); // the backend tries products of floats when it starts
          return (await runCodes(options, mode, block, { beforeLoading })).values;
        };
        await assertSame(name, work);
      }
      standIn.reset();
    });
  }

  test("every kernel ran in every order", () => {
    const orders = Object.keys(THREAD_ORDERS);
    for (const [kernel, seen] of ran) assert.deepEqual([...seen], orders, kernel);
  });
}

/** Families that take long to make and whose kernels others take too. */
const SLOW_FAMILIES: readonly string[] = ["large linear layers", "products of integer codes"];

/** Cases by the backend that runs them. */
function groups(): {
  readonly name: string;
  readonly options: CudaBackendOptions;
  readonly cases: () => ConformanceCase[];
}[] {
  const own = { cublasLtLibrary: false, cudnnLibrary: false } as const;
  const suite = () =>
    Object.entries(FAMILIES).filter(([name]) => !SLOW_FAMILIES.includes(name))
      .flatMap(([, family]) => family()).filter((one) => !lackedByCuda(one));
  const codes = () => [...int8Cases(), ...llmInt8Cases()];
  return [
    { name: "by our own kernels", options: own, cases: () => [...suite(), ...codes()] },
    {
      name: "with libraries",
      options: {},
      cases: () => suite().filter(({ op }) => usesLibraries(op)),
    },
    ...(["float16", "bfloat16"] as const).flatMap((matmulPrecision) => [
      {
        name: `in ${matmulPrecision}`,
        options: { matmulPrecision },
        cases: () => [...dnnCases(matmulPrecision), ...float8Cases()],
      },
      {
        name: `in ${matmulPrecision} by our own kernels`,
        options: { ...own, matmulPrecision },
        cases: () => precisionCases(matmulPrecision),
      },
    ]),
  ];
}

/** How many cases shall run each kernel. */
const CASES_OF_KERNEL = 2;
/** Cases are looked at in these steps, so that neighbours, which are alike, are not taken together. */
const STRIDE = 97;

/** A few cases that take every kernel that any of them takes. */
async function covering(
  backend: CudaBackend,
  cases: readonly ConformanceCase[],
): Promise<ConformanceCase[]> {
  const counts = new Map<KernelName, number>();
  const taken: ConformanceCase[] = [];
  for (let first = 0; first < STRIDE; first++) {
    for (let at = first; at < cases.length; at += STRIDE) {
      const kernels = await kernelsOf(backend, cases[at]!);
      if (!kernels.some((kernel) => (counts.get(kernel) ?? 0) < CASES_OF_KERNEL)) continue;
      for (const kernel of kernels) counts.set(kernel, (counts.get(kernel) ?? 0) + 1);
      taken.push(cases[at]!);
    }
  }
  return taken;
}

/** The kernels that a case is captured as. */
async function kernelsOf(backend: CudaBackend, testCase: ConformanceCase): Promise<KernelName[]> {
  const plan = planCase(backend, testCase);
  const source = testCase.weights ?? new TestWeights();
  const weights = await backend.loadWeights(plan.weights, source);
  const kernels = new Set<KernelName>();
  const enqueue = backend.enqueue;
  backend.enqueue = (launch) => {
    if (launch.kind === "kernel") kernels.add(launch.kernel);
    enqueue.call(backend, launch);
  };
  try {
    (await backend.compile(plan, weights)).release();
  } finally {
    backend.enqueue = enqueue;
    await weights.release();
  }
  return [...kernels];
}

/** Attention over heads that are normed and rotated. */
async function runHeads(options: CudaBackendOptions): Promise<Float32Array[]> {
  const [rows, heads, size] = [23, 3, 16];
  const weights = new TestWeights();
  const random = new Random(9300);
  weights.add("w", denseWeight(random, "float32", [size]));
  const graph = new Graph("heads", weights);
  const shapes = { x: [rows, heads * size], cos: [rows, size], sin: [rows, size] };
  const inputs = Object.fromEntries(
    Object.entries(shapes).map(([name, [m, n]]) => {
      const values = Float32Array.from({ length: m! * n! }, () => random.normal());
      return [name, HostTensor.fromFloat32(values, [m!, n!])];
    }),
  );
  const [x, cos, sin] = (["x", "cos", "sin"] as const)
    .map((name) => graph.input(name, shapes[name])) as [Tensor, Tensor, Tensor];
  const weight = graph.weight("w", [size]);
  const normed = (from: Tensor) => headNormRope(from, { heads, weight, epsilon: 1e-6, cos, sin });
  const [q, k] = [normed(x), normed(affine(x, 0.5, 0.25))];
  graph.output("y", attention(q, k, x, { heads, scale: 0.25, causal: false }));
  return (await launched(graph, weights, inputs, options)).values;
}
