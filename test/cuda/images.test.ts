/** The committed CUDA modules: what they hold, and where NVIDIA's tools are, how they were compiled. */

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { loadImage } from "../../src/backends/cuda/kernel_images.ts";
import { BLOCK_THREADS, KERNEL_NAMES } from "../../src/backends/cuda/kernel_names.ts";
import { type Cubin, readCubin } from "./cubin.ts";
import { findTool } from "./toolkit.ts";

const CAPABILITIES = [80, 86, 89, 90, 100, 120];
/** A device without a build of its own. */
const OTHER_CAPABILITY = 121;
/** Registers of a multiprocessor, on every architecture. */
const REGISTERS = 65536;
const GENERATED = fileURLToPath(new URL("../../src/backends/cuda/generated/", import.meta.url));
const MOST_COMMITTED_BYTES = 10 * 1024 ** 2;

const modules = new Map<number, Cubin>();
for (const capability of CAPABILITIES) {
  modules.set(capability, readCubin((await loadImage(capability))!));
}

test("a module for each architecture holds every kernel and no other", () => {
  for (const [capability, module] of modules) {
    assert.equal(module.capability, capability);
    assert.deepEqual([...module.kernels.keys()].sort(), [...KERNEL_NAMES].sort());
  }
});

/** Kernels whose inner loops take the time of a picture: nothing of theirs may leave the registers. */
const INNER_LOOPS = /^(attention_|linear|matmul$|conv2d$)/;
/** What the assembler may spill of the others, to have more threads at once. */
const MOST_STACK_BYTES = 24;

test("products and attention keep nothing on a stack, and blocks fit a multiprocessor twice", () => {
  for (const [capability, { kernels }] of modules) {
    for (const [name, { registers, stackBytes }] of kernels) {
      const most = INNER_LOOPS.test(name) ? 0 : MOST_STACK_BYTES;
      assert.ok(stackBytes <= most, `${name} for sm_${capability}: ${stackBytes} bytes`);
      assert.ok(registers * BLOCK_THREADS <= REGISTERS / 2, `${name}: ${registers} registers`);
    }
  }
});

test("kernels take the same parameters on every architecture", () => {
  const sizesOf = ({ kernels }: Cubin) =>
    Object.fromEntries([...kernels].map(([name, { parameterBytes }]) => [name, parameterBytes]));
  const [first, ...others] = [...modules.values()].map(sizesOf);
  assert.ok(Object.values(first!).every((bytes) => bytes > 0 && bytes % 8 === 0));
  for (const other of others) assert.deepEqual(other, first);
});

test("the PTX for other devices is of CUDA 12.0, for sm_80, with every kernel", async () => {
  const text = new TextDecoder().decode((await loadImage(OTHER_CAPABILITY))!);
  assert.match(text, /^\.version 8\.0$/m);
  assert.match(text, /^\.target sm_80$/m);
  assert.deepEqual(entriesOf(text), [...KERNEL_NAMES].sort());
  assert.ok(text.endsWith("\0"));
});

test("the committed modules take less than 10 MB", () => {
  const bytes = readdirSync(GENERATED).map((name) => statSync(join(GENERATED, name)).size);
  assert.ok(bytes.reduce((sum, size) => sum + size, 0) < MOST_COMMITTED_BYTES);
});

/** What a kernel is made for, as patterns of machine code; the names hold on every architecture here. */
const INSTRUCTIONS: Readonly<Record<string, readonly RegExp[]>> = {
  dequantize_bfloat16: [/STG\.E\.128/, /F2FP\.BF16/],
  dequantize_float16: [/STG\.E\.128/, /F2FP(\.F16)?\./],
  dequantize_float32: [/STG\.E\.128/],
  linear_float32: [/FFMA/, /LDS\.128/],
  linear_int8: [/IDP\.4A\.S8\.S8/],
  llm_int8_linear: [/IDP\.4A\.S8\.S8/],
  narrow_bfloat16: [/STG\.E\.128/, /F2FP\.BF16/],
  narrow_float16: [/STG\.E\.128/],
  sign_codes: [/STG\.E\.128/],
  unpack_int8: [/STG\.E\.128/],
};

const disassembler = await findTool("nvdisasm");
const noDisassembler = disassembler ? false : "nvdisasm is not installed";
if (noDisassembler) console.log(`cuda: machine code is not looked at: ${noDisassembler}`);
for (const capability of [80, 90, 120]) {
  test(`sm_${capability} kernels have the instructions they are made for`, {
    skip: noDisassembler,
  }, async () => {
    const code = disassemble(disassembler!, (await loadImage(capability))!);
    for (const [name, patterns] of Object.entries(INSTRUCTIONS)) {
      const own = code.get(name)!;
      for (const pattern of patterns) assert.match(own, pattern, `${name}: ${pattern}`);
    }
    for (const [name, own] of code) {
      if (INNER_LOOPS.test(name)) assert.doesNotMatch(own, /\b(LDL|STL)\b/, name);
    }
    assert.deepEqual([...code.keys()].sort(), [...KERNEL_NAMES].sort());
  });
}

const compiler = await findTool("nvcc");
const noCompiler = compiler ? false : "nvcc is not installed";
if (noCompiler) console.log(`cuda: the kernels are not compiled: ${noCompiler}`);
test("nvcc compiles the kernels, every one of them", { skip: noCompiler }, () => {
  const source = fileURLToPath(new URL("../../kernels-cuda/kernels.cu", import.meta.url));
  inFolder((folder) => {
    const output = join(folder, "kernels.ptx");
    execFileSync(compiler!, ["-ptx", "-arch=compute_80", "-o", output, source], { stdio: "pipe" });
    assert.deepEqual(entriesOf(readFileSync(output, "utf8")), [...KERNEL_NAMES].sort());
  });
});

/** The machine code of each kernel as text. */
function disassemble(tool: string, image: Uint8Array): Map<string, string> {
  return inFolder((folder) => {
    const path = join(folder, "kernels.cubin");
    writeFileSync(path, image);
    const stdio = ["ignore", "pipe", "ignore"] as ["ignore", "pipe", "ignore"];
    const options = { encoding: "utf8", maxBuffer: 2 ** 30, stdio } as const;
    const parts = execFileSync(tool, [path], options).split(/^\s*\.section\s+/m);
    return new Map(parts.flatMap((part) => {
      const name = /^\.text\.(\w+)/.exec(part)?.[1];
      return name === undefined ? [] : [[name, part] as const];
    }));
  });
}

function inFolder<Result>(action: (folder: string) => Result): Result {
  const folder = mkdtempSync(join(tmpdir(), "halftone-images-"));
  try {
    return action(folder);
  } finally {
    rmSync(folder, { recursive: true });
  }
}

function entriesOf(ptx: string): string[] {
  return [...ptx.matchAll(/\.visible \.entry (\w+)\(/g)].map((match) => match[1]!).sort();
}
