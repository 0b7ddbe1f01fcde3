/**
 * Time to quantize one 3072 x 12288 matrix to each GGUF type, on one thread.
 *
 *     deno run -A bench/quantize.ts [rows]
 */

import { quantizeBlocks } from "../src/quantization/gguf_quantizers.ts";
import { type GgufQuantType, isGgufQuantType } from "../src/quantization/gguf_quantizers.ts";
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
  quantizeBlocks(name as GgufQuantType, values.subarray(0, 64 * COLUMNS), blocks); // warm up
  blocks.fill(0);
  const start = performance.now();
  quantizeBlocks(name, values, blocks);
  const seconds = (performance.now() - start) / 1000 * ROWS / measured;
  console.log(`${name.padEnd(8)} ${seconds.toFixed(2)} s for ${ROWS} x ${COLUMNS}`);
}
