/**
 * How fast weights come from files that lie in the page cache, beside reading the files and no more: into a few
 * bytes that serve again, and into fresh memory, as weights must be. No loader can be faster than the latter.
 */

import { closeSync, existsSync, openSync, readdirSync, readSync, statSync } from "node:fs";
import { join } from "node:path";
import { OneStep } from "../one_step.ts";
import { fluxConfig, writeRandomTransformer } from "../random_transformer.ts";
import { compare, type Comparison, type Contender, timed } from "../suite/measure.ts";
import type { Section, SectionOptions } from "../suite/section.ts";
import { FluxTransformer2DModel } from "../../src/models/flux_transformer.ts";
import { openComponent } from "../../src/pipelines/component.ts";
import { parseQuantizeFlag } from "../../src/quantization/formats.ts";
import { cpuCount, runtimeName, runtimeVersion } from "../../src/runtime/system.ts";

/** A pair of FLUX.1's blocks with all that stands around them. */
const CONFIG = fluxConfig(1, 1);
const TINY_CONFIG = fluxConfig(1, 1, 2);
const FORMS: readonly Form[] = [
  { name: "bfloat16, sharded safetensors", maxShardSize: 300e6 },
  {
    name: "bfloat16 quantized to NF4 on the way",
    maxShardSize: 300e6,
    onTheWay: "bitsandbytes:nf4",
  },
  { name: "NF4, safetensors", quantize: "bitsandbytes:nf4" },
  { name: "Q8_0, GGUF", quantize: "gguf:Q8_0" },
  { name: "Q4_0, GGUF", quantize: "gguf:Q4_0" },
];
/** Files, and what is made of their weights. */
interface Form {
  readonly name: string;
  readonly quantize?: string;
  readonly maxShardSize?: number;
  /** What weights are quantized to while they load, by a thread for each processor. */
  readonly onTheWay?: string;
}

const CHUNK_BYTES = 16 * 2 ** 20;
const CHUNK_SHIFT = 64;
const PAGE_BYTES = 65536;

/** The section. */
export const loading: Section = {
  about: "loading a block pair's weights from the page cache, beside reading the files alone",
  perRuntime: true,
  run: async (options) => {
    const comparisons: Comparison[] = [];
    for (const form of FORMS) comparisons.push(await compared(form, options));
    return { comparisons };
  },
};

async function compared(
  { name, quantize, maxShardSize, onTheWay }: Form,
  { models, rounds, tiny }: SectionOptions,
): Promise<Comparison> {
  const format = quantize?.replace(":", "-") ?? "bfloat16";
  const folder = join(models, `${tiny ? "tiny-" : ""}pair-${format}`);
  const component = join(folder, "transformer");
  if (!existsSync(join(component, "config.json"))) {
    await writeRandomTransformer(component, tiny ? TINY_CONFIG : CONFIG, quantize, {
      maxShardSize,
    });
  }
  const files = readdirSync(component).filter((file) => /\.(safetensors|gguf)$/.test(file))
    .map((file) => join(component, file));
  const bytes = files.reduce((sum, file) => sum + statSync(file).size, 0);
  return await compare({
    name: `loading, ${name}`,
    threads: onTheWay === undefined ? 1 : cpuCount(),
    work: { amount: bytes, unit: "B" },
    rounds,
    subjects: ["halftone"],
    sameWork: false,
  }, [
    { name: "halftone", open: () => Promise.resolve(loader(folder, onTheWay)) },
    { name: "reading alone", open: () => Promise.resolve(reader(files)) },
    { name: "reading into fresh memory", open: () => Promise.resolve(freshReader(files, bytes)) },
  ]);
}

/** Opens the component, loads all its weights into WebAssembly memory, and closes it. */
function loader(folder: string, onTheWay?: string): Contender {
  const quantizationConfig = onTheWay === undefined
    ? undefined
    : parseQuantizeFlag(onTheWay).config;
  return {
    name: "halftone",
    version: `${runtimeName()} ${runtimeVersion()}`,
    run: async () => {
      const component = await openComponent(
        folder,
        "transformer",
        (config) => new FluxTransformer2DModel(config),
        { quantizationConfig },
      );
      const step = await OneStep.open(component, 16, {
        threads: 1,
        residentWeightBytes: 3 * 2 ** 30,
      });
      step.plans; // made now, as planning is no loading
      const sample = await timed(() => step.loadAll());
      await step.close();
      return sample;
    },
    close: () => Promise.resolve(),
  };
}

function reader(files: readonly string[]): Contender {
  // Copies by `rep movs` are four times slower on Zen 3 where both addresses are alike modulo 4096.
  const chunk = new Uint8Array(CHUNK_BYTES + CHUNK_SHIFT).subarray(CHUNK_SHIFT);
  return {
    name: "reading alone",
    version: `${runtimeName()} ${runtimeVersion()}`,
    settings: { call: "readSync", chunk: CHUNK_BYTES },
    run: () =>
      timed(() => {
        for (const file of files) readThrough(file, () => chunk);
        return Promise.resolve();
      }),
    close: () => Promise.resolve(),
  };
}

function freshReader(files: readonly string[], bytes: number): Contender {
  return {
    name: "reading into fresh memory",
    version: `${runtimeName()} ${runtimeVersion()}`,
    settings: { call: "readSync", chunk: CHUNK_BYTES },
    run: () =>
      timed(() => {
        const pages = Math.ceil((bytes + CHUNK_SHIFT) / PAGE_BYTES);
        const { buffer } = new WebAssembly.Memory({ initial: pages, maximum: pages });
        let end = CHUNK_SHIFT;
        const next = () =>
          new Uint8Array(buffer, end, Math.min(CHUNK_BYTES, buffer.byteLength - end));
        for (const file of files) readThrough(file, next, (count) => end += count);
        return Promise.resolve();
      }),
    close: () => Promise.resolve(),
  };
}

/** Reads a file to its end, each time into the bytes that `next` gives. */
function readThrough(
  file: string,
  next: () => Uint8Array,
  onRead: (count: number) => void = () => {},
): void {
  const handle = openSync(file, "r");
  let count: number;
  while ((count = readSync(handle, next())) > 0) onRead(count);
  closeSync(handle);
}
