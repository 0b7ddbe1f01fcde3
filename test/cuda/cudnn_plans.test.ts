/** What NVIDIA's own cuDNN plans without a GPU, for devices that it is only told of. */

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import type { ConvolutionProblem } from "../../src/backends/cuda/dnn_problem.ts";
import { MATMUL_PRECISIONS, operandType } from "../../src/backends/cuda/matmul_precision.ts";
import {
  type DescribedPlan,
  describedPlans,
  type DeviceName,
  DEVICES,
} from "./described_device.ts";
import { convolutionProblem } from "./dnn_problems.ts";
import { openGenuineCudnn } from "./genuine_cudnn.ts";

/** The first version that chooses for a described device. */
const DESCRIBED_VERSION = 91100;

const genuine = await openGenuineCudnn();
const isDescribing = typeof genuine !== "string" && genuine.version >= DESCRIBED_VERSION;
const skip = typeof genuine === "string"
  ? genuine
  : isDescribing
  ? false
  : "this cuDNN knows no described devices";
if (skip) console.log(`cuda: plans of NVIDIA's cuDNN are not made: ${skip}`);

/** Of the decoder at 1024x1024: the middle, the first and the last layer, 1x1, bands above, between and below others. */
const DECODER: readonly [
  size: [number, number],
  channels: [number, number],
  kernel: number,
  padding: [number, number],
][] = [
  [[128, 128], [512, 512], 3, [1, 1]],
  [[128, 128], [16, 512], 3, [1, 1]],
  [[256, 1024], [128, 3], 3, [0, 1]],
  [[512, 512], [512, 256], 1, [0, 0]],
  [[66, 1024], [256, 256], 3, [0, 0]],
];

test("NVIDIA's cuDNN has plans for the decoder's convolutions on every device", {
  skip,
}, () => {
  if (typeof genuine === "string") return;
  for (const device of Object.keys(DEVICES) as DeviceName[]) {
    for (const precision of MATMUL_PRECISIONS) {
      for (const shape of DECODER) {
        const problem = decoderProblem(...shape, precision);
        const [plan] = describedPlans(genuine, device, problem);
        assert.ok(plan, `${device}, ${precision}, ${JSON.stringify(shape)}`);
        assert.ok(plan.workspaceBytes <= problem.workspaceBytes);
      }
    }
  }
});

test("NVIDIA's cuDNN has several plans for each, of which every one is found again", {
  skip,
}, () => {
  if (typeof genuine === "string") return;
  for (const device of ["A100", "H200", "RTX 5090"] as const) {
    for (const shape of DECODER) {
      const problem = decoderProblem(...shape, "bfloat16");
      const plans = describedPlans(genuine, device, problem, { most: 4 });
      assert.equal(plans.length, 4);
      assert.deepEqual(plans.slice(0, 1), describedPlans(genuine, device, problem));
      for (const [index, plan] of plans.entries()) {
        assert.ok(index === 0 || plan.suggestion > plans[index - 1]!.suggestion);
        const { suggestion } = plan;
        assert.deepEqual(describedPlans(genuine, device, problem, { most: 4, suggestion }), [plan]);
      }
    }
  }
});

test("NVIDIA's cuDNN compiles attention for described devices", { skip }, () => {
  if (typeof genuine === "string") return;
  const folder = mkdtempSync(join(tmpdir(), "halftone-compile-only-"));
  try {
    const source = new URL("../../kernels-cuda/stand_in/compile_only_driver.cpp", import.meta.url);
    const driver = join(folder, "libcuda.so.1");
    const flags = ["-shared", "-fPIC", "-Wl,-soname,libcuda.so.1", "-o", driver];
    execFileSync(process.env.CXX ?? "g++", [...flags, fileURLToPath(source)]);
    const script = fileURLToPath(new URL("attention_plans.ts", import.meta.url));
    const runtime = "Deno" in globalThis ? ["run", "-A", "--no-check"] : [];
    const { LD_LIBRARY_PATH = "" } = process.env;
    const text = execFileSync(process.execPath, [...runtime, script, genuine.library], {
      env: { ...process.env, LD_LIBRARY_PATH: `${folder}:${LD_LIBRARY_PATH}` },
      encoding: "utf8",
    });
    const devices = Object.entries<Record<string, DescribedPlan[]>>(JSON.parse(text));
    assert.equal(devices.length, 3);
    for (const [device, found] of devices) {
      for (const [problem, plans] of Object.entries(found)) {
        const isFew = plans.length === 1 || plans.length === 2;
        assert.ok(isFew, `${device}, ${problem}: ${plans.length}`);
        assert.ok(plans.every(({ workspaceBytes }) => workspaceBytes <= 2 ** 25));
      }
    }
  } finally {
    rmSync(folder, { recursive: true });
  }
});

function decoderProblem(
  size: readonly [height: number, width: number],
  channels: readonly [from: number, to: number],
  kernel: number,
  [vertical, horizontal]: readonly [number, number],
  precision: typeof MATMUL_PRECISIONS[number],
): ConvolutionProblem {
  const problem = convolutionProblem(size, channels, {
    kernel,
    padding: [vertical, horizontal, vertical, horizontal],
    type: operandType(precision),
    tensorFloat32: precision === "tensorfloat32",
  });
  if (precision !== "float32") return problem;
  // In float32 the library's workspace holds all operands once more.
  const { x, y } = problem;
  const numbers = x.height * x.rowStride + y.height * y.rowStride +
    kernel ** 2 * x.channels * y.channels;
  return { ...problem, workspaceBytes: 4 * numbers + 2 ** 16 };
}
