/**
 * Processor time to quantize one 3072 x 12288 matrix to each GGUF type, on one thread.
 *
 *     deno run -A bench/quantize.ts [rows]
 */

import { isGgufQuantType, quantizeBlocks } from "../src/quantization/gguf_quantizers.ts";
import { GGUF_TYPES } from "../src/quantization/gguf_types.ts";
import process from "node:process";
import { TorchGenerator } from "../src/tensor/random.ts";

const COLUMNS = 12288;
const ROWS = 3072;

const measured = Number(process.argv[2] ?? ROWS);
const values = new TorchGenerator(0).randn([measured, COLUMNS]).toFloat32();

for (const { name, elements, bytes } of GGUF_TYPES) {
  if (!isGgufQuantType(name)) continue;
  const blocks = new Uint8Array(values.length / elements * bytes);
  quantizeBlocks(name, values.subarray(0, 64 * COLUMNS), blocks); // warm up
  blocks.fill(0);
  const start = process.cpuUsage().user; // not the clock: the machine may be busy with other things
  quantizeBlocks(name, values, blocks);
  const seconds = (process.cpuUsage().user - start) / 1e6 * ROWS / measured;
  console.log(`${name.padEnd(8)} ${seconds.toFixed(2)} s for ${ROWS} x ${COLUMNS}`);
}
