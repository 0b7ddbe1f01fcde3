/** Codes and 16 bits that layers share, and that norms and layers write themselves: the bytes of rounding apart. */

import assert from "node:assert/strict";
import { test } from "node:test";
import type { HalftoneError } from "../../src/errors.ts";
import type { ActivationMode } from "../../src/ops/activation_mode.ts";
import { add, affine, copy, geluTanh, relu, rmsNorm } from "../../src/ops/builders.ts";
import { HostTensor } from "../../src/tensor/host_tensor.ts";
import {
  block,
  type Build,
  CODE_MODES,
  type CodesRun,
  K,
  M,
  runCodes,
  someRows,
} from "./code_graphs.ts";
import { ROW } from "./float8_cases.ts";
import { int8Modes } from "./int8_cases.ts";
import { openStandIn, type StandIn } from "./stand_in.ts";

const standIn = openStandIn("shared_codes");
if (typeof standIn === "string") {
  console.log(`cuda: shared codes are skipped: ${standIn}`);
  test("cuda on the stand-in: shared codes", { skip: standIn }, () => {});
} else {
  registerAll(standIn);
}

function registerAll(standIn: StandIn): void {
  const { libraries } = standIn;
  const run = (mode: ActivationMode, build: Build, options?: CodesRun) =>
    runCodes(libraries, mode, build, options);
  const [reciprocal, asymmetric] = int8Modes() as [ActivationMode, ActivationMode];

  for (const { name, mode, kernels } of CODE_MODES) {
    test(`${name}: shared codes give the bytes of rounding apart`, async () => {
      const shared = await run(mode, block);
      const apart = await run(mode, block, { apart: true });
      assert.deepEqual(shared.values, apart.values);
      const count = ({ names }: typeof shared) =>
        [/^row_norm_codes$/, /^end_\w+_codes$/, /^round_rows$/].map((kernel) =>
          names.filter((name) => kernel.test(name)).length
        );
      assert.deepEqual(count(shared), kernels);
      assert.deepEqual(count(apart), [0, 0, 5]);
    });
  }

  for (const matmulPrecision of ["float16", "bfloat16"] as const) {
    test(`float layers in ${matmulPrecision}: shared rows give the bytes of narrowing apart`, async () => {
      const float = { kind: "float" } as const;
      const readToo: Build = (layers, own) => {
        const normalized = own(rmsNorm(layers.x, { epsilon: 1e-6 }));
        const [q, k] = [layers.layer("q", normalized), layers.layer("k", own(normalized))];
        return { q, k, twice: add(normalized, normalized) };
      };
      const count = ({ names }: Awaited<ReturnType<typeof run>>) =>
        [`row_norm_${matmulPrecision}`, "row_norm", `narrow_${matmulPrecision}`].map((kernel) =>
          names.filter((name) => name === kernel).length
        );
      const expected = [[block, [1, 0, 0], [0, 1, 5]], [readToo, [1, 0, 0], [0, 1, 2]]] as const;
      for (const [build, together, alone] of expected) {
        const shared = await runCodes({ ...libraries, matmulPrecision }, float, build);
        const options = { ...libraries, matmulPrecision };
        const apart = await runCodes(options, float, build, { apart: true });
        assert.deepEqual(shared.values, apart.values);
        assert.deepEqual([count(shared), count(apart)], [together, alone]);
      }
    });
  }

  test("int8 weights are unpacked where they stream, and read as they lie where they stay", async () => {
    for (const mode of [reciprocal, asymmetric]) {
      const resident = await run(mode, block);
      const streamed = await runCodes({ ...libraries, residentWeightBytes: 1 }, mode, block);
      const own = await runCodes({ ...libraries, cublasLtLibrary: false }, mode, block);
      assert.deepEqual(streamed.values, resident.values);
      assert.deepEqual(own.values, resident.values);
      const unpacks = [resident, streamed, own].map(({ launches }) =>
        launches.filter(({ kernel, parameters }) =>
          kernel === "unpack_int8" && new DataView(parameters.buffer).getBigUint64(0, true) !== 0n
        ).length
      );
      assert.deepEqual(unpacks, [0, 5, 0]);
      // Sums of codes are still asked for where zeros are to be taken off.
      assert.equal(resident.names.includes("unpack_int8"), mode === asymmetric);
    }
  });

  test("any allocation or launch may fail: a clear error, and nothing stays", async () => {
    for (
      const [setting, code] of [["failAllocation", "out_of_memory"], [
        "failLaunch",
        "backend_failed",
      ]] as const
    ) {
      let failed = 0;
      for (let k = 1;; k += setting === "failLaunch" ? 4 : 1) {
        const failure = await run(reciprocal, block, {
          beforeLoading: () => standIn.set({ [setting]: k }),
        })
          .then(() => null, (error) => error);
        standIn.reset();
        standIn.assertNothingHeld();
        if (failure === null) break;
        assert.equal((failure as HalftoneError).code, code, String(failure));
        failed++;
      }
      assert.ok(failed >= 3, `${failed} of ${setting}`); // weights, arena, scratch; and every fourth launch
    }
  });

  test("floats that nobody reads are not written, and those that somebody does are", async () => {
    const read: Build = (layers, own) => {
      const normalized = own(rmsNorm(layers.x, { epsilon: 1e-6 }));
      const up = own(geluTanh(layers.layer("up", normalized)));
      return {
        down: layers.layer("down", up),
        sum: add(up, up),
        twice: add(normalized, normalized),
      };
    };
    const writes = ({ launches }: Awaited<ReturnType<typeof run>>) =>
      ([["row_norm_codes", 16], ["end_int8_codes", 32]] as const).map(([kernel, at]) => {
        const { parameters } = launches.find((launch) => launch.kernel === kernel)!;
        return new DataView(parameters.buffer).getBigUint64(at, true) !== 0n;
      });
    assert.deepEqual(writes(await run(reciprocal, block)), [false, false]);
    const kept = await run(reciprocal, read);
    assert.deepEqual(writes(kept), [true, true]);
    assert.deepEqual(kept.values, (await run(reciprocal, read, { apart: true })).values);
  });

  test("layers that round the same x in other ways do not share, and get theirs", async () => {
    const others: Record<string, ActivationMode> = { k: asymmetric, v: { kind: "float" } };
    const shared = await run(reciprocal, block, { others });
    assert.deepEqual(shared.values, (await run(reciprocal, block, { others, apart: true })).values);
    const count = (name: string) => shared.names.filter((found) => found === name).length;
    assert.deepEqual(["row_norm_codes", "round_rows", "narrow_bfloat16"].map(count), [1, 1, 1]);
  });

  test("what another op writes over x in between is rounded again", async () => {
    const rewritten: Build = (layers, own) => {
      const before = affine(layers.x, 2, 0);
      const q = layers.layer("q", own(before));
      const k = layers.layer("k", own(before));
      const after = relu(before); // over what it reads, which nobody needs any more
      return { q, k, down: layers.layer("v", own(after)) };
    };
    const shared = await run(reciprocal, rewritten);
    assert.equal(shared.names.filter((name) => name === "round_rows").length, 2);
    const apart = await run(reciprocal, rewritten, { apart: true });
    assert.deepEqual(shared.values, apart.values);
  });

  test("a part of a concatenation is written as codes and as floats where both are read", async () => {
    const joined: Build = (layers, own) => {
      const whole = layers.graph.allocate([2 * M, K]);
      const top = whole.slice(0, 0, M), bottom = whole.slice(0, M, 2 * M);
      layers.graph.add("copy", {}, [rmsNorm(layers.x, { epsilon: 1e-6 })], top);
      const q = layers.layer("q", own(top));
      layers.graph.add("copy", {}, [affine(layers.x, 0.5, 0)], bottom);
      return { q, whole: copy(whole), k: layers.layer("k", own(bottom)) };
    };
    const shared = await run(reciprocal, joined);
    assert.ok(shared.names.includes("row_norm_codes"));
    assert.deepEqual(shared.values, (await run(reciprocal, joined, { apart: true })).values);
  });

  test("a NaN makes its row NaN, and no other, through layers that write codes", async () => {
    for (const mode of [reciprocal, ROW]) {
      const x = someRows();
      const broken = Float32Array.from(x.toFloat32());
      broken[33 * K + 5] = NaN;
      const clean = await run(mode, block, { x });
      const found = await run(mode, block, { x: HostTensor.fromFloat32(broken, [M, K]) });
      found.values.forEach((values, output) =>
        values.forEach((value, i) => {
          const isBroken = Math.floor(i / (values.length / M)) === 33;
          assert.ok(isBroken ? Number.isNaN(value) : value === clean.values[output]![i]);
        })
      );
    }
  });
}
