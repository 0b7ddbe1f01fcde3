// onnxruntime-node under node, as suite/child_contender.ts speaks to it.
//
//     node onnxruntime_node.mjs MODEL.onnx X.f32 ROWS COLUMNS THREADS

import { readFileSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { createInterface } from "node:readline";

const require = createRequire(import.meta.url);
const ort = require("onnxruntime-node");
const [modelPath, inputPath, rows, columns, threads] = process.argv.slice(2);
const session = await ort.InferenceSession.create(modelPath, {
  executionProviders: ["cpu"],
  graphOptimizationLevel: "all",
  intraOpNumThreads: Number(threads),
  interOpNumThreads: 1,
});
const input = new Float32Array(Uint8Array.from(readFileSync(inputPath)).buffer);
const feeds = { x: new ort.Tensor("float32", input, [Number(rows), Number(columns)]) };
const { version } = require("onnxruntime-node/package.json");
console.log(JSON.stringify({
  version: `${version} (node ${process.versions.node})`,
  settings: { threads: Number(threads), provider: "cpu" },
}));

let y;
for await (const line of createInterface({ input: process.stdin })) {
  const [command, argument] = line.split(" ");
  if (command === "output") {
    writeFileSync(argument, new Uint8Array(y.data.buffer, y.data.byteOffset, y.data.byteLength));
    console.log("{}");
    continue;
  }
  const used = process.cpuUsage();
  const started = performance.now();
  y = (await session.run(feeds)).y;
  const wall = (performance.now() - started) / 1000;
  const { user, system } = process.cpuUsage(used);
  console.log(JSON.stringify({ wall, processor: (user + system) / 1e6 }));
}
