/** Which of cuDNN's engines is taken, on its stand-in, where time passes as a test says. */

import assert from "node:assert/strict";
import { test } from "node:test";
import {
  createCudaBackend,
  type CudaBackend,
  type CudaBackendOptions,
} from "../../src/backends/cuda/mod.ts";
import { HalftoneError } from "../../src/errors.ts";
import { attention, conv2d } from "../../src/ops/builders.ts";
import { Graph } from "../../src/ops/graph.ts";
import { buildPlan } from "../../src/plan/build.ts";
import { Random } from "../backends/conformance/random.ts";
import { denseWeight, TestWeights } from "../backends/conformance/weights.ts";
import { normalTensor } from "../../bench/random_values.ts";
import { openStandIn, type StandIn } from "./stand_in.ts";

type Settings = Parameters<StandIn["set"]>[0];

/** Engines of the stand-in that keep numbers and run, best first; one between them does not run after all. */
const ENGINES = [3, 4, 6] as const;
/** Such an engine that comes after the four which are tried. */
const SPARE = 7;
/** The only kind of engine that keeps all bits of float32. */
const PLAIN = 4;
/** Plans that are made to be timed, and runs of each: one beforehand, three that are timed. */
const CANDIDATES = 4;
const RUNS = 4;
/** Runs of what is chosen: before graphs are captured, and in the run. */
const USES = 2;
/** Events that a program makes before anything is timed. */
const PROGRAM_EVENTS = 2;

const HEADS = { heads: 2, size: 16, keys: 12 } as const;
const CHANNELS = { from: 4, to: 6, height: 5, kernel: 3 } as const;

/** Attention of so many queries, or a convolution of so many columns: sizes that nothing else here has. */
const KINDS = {
  attention: {
    graph: (queries: number) => {
      const { heads, size, keys } = HEADS;
      const graph = new Graph("attention", { lookup: () => undefined });
      const [q, k, v] = [queries, keys, keys].map((rows, i) =>
        graph.input("qkv"[i]!, [rows, heads * size])
      );
      graph.output("y", attention(q!, k!, v!, { heads, scale: 0.25 }));
      return { graph, weights: new TestWeights() };
    },
    multiplications: (queries: number) => 2 * HEADS.heads * HEADS.size * HEADS.keys * queries,
    text: (queries: number) => `attention of 2 heads of 16, ${queries} queries`,
  },
  convolution: {
    graph: (width: number) => {
      const { from, to, height, kernel } = CHANNELS;
      const weights = new TestWeights();
      const shape = [to, from, kernel, kernel];
      weights.add("w", denseWeight(new Random(5), "bfloat16", shape));
      const graph = new Graph("convolution", weights);
      const x = graph.input("x", [height, width, from]);
      const w = graph.weight("w", shape, "convolution");
      graph.output("y", conv2d(x, w, undefined, { kernel, padding: 1 }));
      return { graph, weights };
    },
    multiplications: (width: number) => {
      const { from, to, height, kernel } = CHANNELS;
      return height * width * from * to * kernel ** 2;
    },
    text: (width: number) => `a convolution of \\[5, ${width}, 4\\]`,
  },
} as const;
type Kind = keyof typeof KINDS;

function registerAll(standIn: StandIn): void {
  const { libraries } = standIn;

  function open(options: Partial<CudaBackendOptions> = {}): Promise<CudaBackend> {
    const usual = { matmulPrecision: "bfloat16", measureProductsFrom: 1 } as const;
    return createCudaBackend({ ...libraries, ...usual, ...options });
  }

  async function run(backend: CudaBackend, kind: Kind, n: number): Promise<Uint8Array> {
    const { graph, weights } = KINDS[kind].graph(n);
    const plan = buildPlan(graph, { supports: () => true });
    const loaded = await backend.loadWeights(plan.weights, weights);
    try {
      const program = await backend.compile(plan, loaded);
      for (const [name, { shape }] of Object.entries(plan.inputs)) {
        program.write(name, normalTensor(shape));
      }
      await program.run();
      const { bytes } = program.read("y");
      program.release();
      return bytes;
    } finally {
      await loaded.release();
    }
  }

  /** The engine that is chosen, how many plans were made for it and kept, and how often it ran. */
  async function choice(
    kind: Kind,
    n: number,
    settings: Settings,
    options: Partial<CudaBackendOptions> = {},
  ) {
    standIn.set(settings);
    const backend = await open(options);
    const counts = () => (["plansMade", "livePlans", "operations"] as const).map(standIn.count);
    const before = counts();
    const bytes = await run(backend, kind, n);
    const engine = standIn.count("lastEngine");
    const [made, kept, runs] = counts().map((value, i) => value - before[i]!);
    await backend.close();
    standIn.reset();
    standIn.assertNothingHeld();
    assert.equal(standIn.count("livePlans"), 0);
    return { engine, made, kept, runs, bytes };
  }

  for (const kind of Object.keys(KINDS) as Kind[]) {
    test(`${kind}: the fastest engine is taken, the other plans are given back`, async () => {
      for (const fastestEngine of ENGINES) {
        const settings = { operationMicroseconds: 100, fastestEngine };
        const { engine, made, kept, runs } = await choice(kind, 20 + fastestEngine, settings);
        assert.equal(engine, fastestEngine);
        // The greedy engine has a plan for a moment too: it says how much workspace it needs.
        assert.deepEqual([made, kept], [CANDIDATES + 1, 1]);
        assert.equal(runs, ENGINES.length * RUNS + USES);
      }
    });

    test(`${kind}: of engines that are alike the library's first is taken, and four are tried`, async () => {
      const alike = await choice(kind, 30, { operationMicroseconds: 0 });
      assert.deepEqual([alike.engine, alike.runs], [ENGINES[0], ENGINES.length * RUNS + USES]);
      const last = await choice(kind, 31, { operationMicroseconds: 100, fastestEngine: SPARE });
      assert.equal(last.engine, ENGINES.at(-1));
    });

    test(`${kind}: a choice holds for a device, a version and a problem, in all backends`, async () => {
      const settings = { operationMicroseconds: 100 };
      const first = await choice(kind, 40, { ...settings, fastestEngine: 6 });
      assert.equal(first.engine, 6);
      const other = { ...settings, fastestEngine: 4 };
      const again = await choice(kind, 40, other);
      assert.deepEqual([again.engine, again.made, again.runs], [6, 1, USES]);
      assert.deepEqual(again.bytes, first.bytes);
      assert.equal((await choice(kind, 40, { ...other, capability: 89 })).engine, 4);
      assert.equal((await choice(kind, 40, { ...other, cudnnVersion: 91400 })).engine, 4);
      assert.equal((await choice(kind, 41, other)).engine, 4);
      assert.equal((await choice(kind, 40, other)).engine, 6);
    });

    test(`${kind}: engines are timed from so many multiplications on, by default not of small ones`, async () => {
      const settings = { operationMicroseconds: 100, fastestEngine: 6 };
      const size = KINDS[kind].multiplications(50);
      for (const measureProductsFrom of [size + 1, Infinity, undefined]) {
        const small = await choice(kind, 50, settings, { measureProductsFrom });
        assert.deepEqual([small.engine, small.kept, small.runs], [ENGINES[0], 1, USES]);
      }
      const large = await choice(kind, 50, settings, { measureProductsFrom: size });
      assert.equal(large.engine, 6);
    });

    test(`${kind}: slow engines are not timed to the end`, async () => {
      const slow = { operationMicroseconds: 3000, fastestEngine: 6 };
      // 12 ms a run: the first engine's runs spend what there is.
      const { engine, runs } = await choice(kind, 60, slow);
      assert.deepEqual([engine, runs], [ENGINES[0], RUNS + USES]);
      // 8 and 6 ms a run: the second's runs go over.
      const two = await choice(kind, 61, { ...slow, operationMicroseconds: 2000 });
      assert.deepEqual([two.engine, two.runs], [ENGINES[1], 2 * RUNS + USES]);
    });

    test(`${kind}: every call of the timing may fail: a clear error, and nothing stays`, async () => {
      const asked: unknown[] = [];
      for (let k = 1; k <= PROGRAM_EVENTS + 13; k++) {
        const backend = await open();
        standIn.set({ failEvent: k });
        const error = await run(backend, kind, 70).then(() => null, (error) => error);
        standIn.reset();
        await backend.close();
        standIn.assertNothingHeld();
        assert.ok(error instanceof HalftoneError && error.code === "backend_failed", String(error));
        assert.match(error.message, /^Cannot .*CUDA_ERROR_LAUNCH_FAILED \(719\)/);
        asked.push(error.detail.field);
      }
      const mark = ["cuEventCreate", "cuEventRecord"];
      const timing = [...mark, ...mark, "cuEventSynchronize", "cuEventElapsedTime"];
      // Two timings, and the next engine's.
      assert.deepEqual(asked.slice(PROGRAM_EVENTS), [...timing, ...timing, mark[0]]);
    });

    test(`${kind}: what fails while it is timed is an error in the library's words`, async () => {
      const named = new Set<unknown>();
      const backend = await open();
      standIn.set({ failEvent: 1 }); // so that it is prepared, but not timed
      await assert.rejects(run(backend, kind, 80));
      for (let k = 1;; k++) {
        standIn.set({ failCudnn: k });
        const error = await run(backend, kind, 80).then(() => null, (error) => error);
        standIn.reset();
        if (error === null) break;
        assert.ok(error instanceof HalftoneError && error.code === "backend_failed", String(error));
        const expected = new RegExp(`^Cannot run ${KINDS[kind].text(80)}.*CUDNN_STATUS_`);
        assert.match(error.message, expected);
        named.add(error.detail.field);
      }
      assert.deepEqual([...named].sort(), [
        "cudnnBackendCreateDescriptor",
        "cudnnBackendExecute",
        "cudnnBackendFinalize",
        "cudnnBackendSetAttribute",
      ]);
      await backend.close();
      standIn.assertNothingHeld();
    });
  }

  test("in float32 only engines that keep all bits are timed", async () => {
    const settings = { operationMicroseconds: 100, fastestEngine: 3 };
    const exact = await choice("convolution", 90, settings, { matmulPrecision: "float32" });
    assert.equal(exact.engine, PLAIN);
    const rounded = await choice("convolution", 90, settings, { matmulPrecision: "tensorfloat32" });
    assert.equal(rounded.engine, 3);
  });
}

const standIn = openStandIn("engine_choice");
if (typeof standIn === "string") {
  console.log(`cuda: the choice of engines is skipped: ${standIn}`);
  test("cuda on the stand-in: the choice of engines", { skip: standIn }, () => {});
} else {
  registerAll(standIn);
}
