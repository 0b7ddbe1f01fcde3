/** What `halftone quantize` takes for a sharded checkpoint of two gigabytes. */

import { spawn } from "node:child_process";
import { existsSync, mkdtempSync, readdirSync, rmSync, statSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { peakOfProcess } from "../process_memory.ts";
import { fluxConfig, writeRandomTransformer } from "../random_transformer.ts";
import type { Figure, Section, SectionOptions } from "../suite/section.ts";
import { runtimeName } from "../../src/runtime/system.ts";

const CONFIG = fluxConfig(2, 2);
const SHARD_BYTES = 500e6;
const TINY_CONFIG = fluxConfig(1, 1, 2);
const FORMATS = ["bitsandbytes:nf4", "gguf:Q4_0"];
const POLL_MILLISECONDS = 100;

/** The section. */
export const quantizeMemory: Section = {
  about: "peak memory and time of quantizing a sharded checkpoint of 2 GB",
  perRuntime: true,
  run: async (options) => {
    const { models } = options;
    const source = await shardedModel(options);
    const figures: Figure[] = [];
    for (const format of FORMATS) figures.push(...await quantized(source, format, models));
    const { bytes, largest } = sizesOf(source);
    return {
      figures: [
        { name: "checkpoint", value: bytes, unit: "bytes", detail: { largestShard: largest } },
        ...figures,
      ],
    };
  },
};

async function shardedModel({ models, tiny }: SectionOptions): Promise<string> {
  const folder = join(models, tiny ? "tiny-pair-bfloat16-alone" : "two-pairs-bfloat16");
  if (!existsSync(join(folder, "config.json"))) {
    const config = tiny ? TINY_CONFIG : CONFIG;
    await writeRandomTransformer(folder, config, undefined, { maxShardSize: SHARD_BYTES });
  }
  return folder;
}

function sizesOf(folder: string): { bytes: number; largest: number } {
  const sizes = readdirSync(folder).map((name) => statSync(join(folder, name)).size);
  return { bytes: sizes.reduce((sum, size) => sum + size, 0), largest: Math.max(...sizes) };
}

/** Runs the command line in a process of its own and watches its memory. */
async function quantized(source: string, format: string, models: string): Promise<Figure[]> {
  const folder = mkdtempSync(join(models, "quantized-"));
  try {
    const started = performance.now();
    const peak = await peakOfCommand([
      "quantize",
      source,
      join(folder, "out"),
      "--quantize",
      format,
    ]);
    const seconds = (performance.now() - started) / 1000;
    return [
      { name: `${format}, peak of the process`, value: peak, unit: "bytes" },
      { name: `${format}, time`, value: seconds, unit: "s" },
    ];
  } finally {
    rmSync(folder, { recursive: true });
  }
}

async function peakOfCommand(words: readonly string[]): Promise<number> {
  const main = fileURLToPath(new URL("../../cli/main.ts", import.meta.url));
  const runtime = runtimeName() === "deno" ? ["run", "-A", "--no-check"] : [];
  const child = spawn(process.execPath, [...runtime, main, ...words], {
    stdio: ["ignore", "ignore", "inherit"],
  });
  let peak = 0;
  const timer = setInterval(
    () => peak = Math.max(peak, peakOfProcess(child.pid!) ?? 0),
    POLL_MILLISECONDS,
  );
  const code = await new Promise((resolve) => child.on("close", resolve));
  clearInterval(timer);
  if (code !== 0) throw new Error(`halftone ${words.join(" ")} ended with code ${code}`);
  return peak;
}
