/** The benchmark's row of a whole picture's memory, at a tiny size; plan_memory.test.ts has the driver's own count. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { measurePicture } from "../../bench/cuda_picture.ts";
import { fluxConfig } from "../../bench/random_transformer.ts";
import { openStandIn } from "./stand_in.ts";

const standIn = openStandIn("bench_picture");
const skip = typeof standIn === "string" ? standIn : false;
if (skip) console.log(`cuda: the benchmark of a picture is skipped: ${skip}`);

test("a picture's planned and counted peak on the device are within 3 %", { skip }, async () => {
  if (typeof standIn === "string") return;
  const flux = { transformer: fluxConfig(1, 1, 1), textScale: 0.01, decoderWidth: 4 };
  const options = { ...standIn.libraries, matmulPrecision: "bfloat16" } as const;
  const sizes = { pixels: 16, textTokens: 2 };
  const { bytes, isFinite } = await measurePicture(flux, "bitsandbytes:nf4", options, sizes);
  const { plannedDevicePeak: planned, devicePeak: counted } = bytes;
  assert.ok(Math.abs(planned! / counted! - 1) <= 0.03, `${planned} bytes, not ${counted}`);
  const peaks = Object.values(bytes.peakAfter);
  assert.deepEqual([isFinite, peaks.length, peaks.at(-1)], [true, 5, counted]);
  standIn.assertNothingHeld();
});
