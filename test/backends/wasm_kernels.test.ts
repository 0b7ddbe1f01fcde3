/** The two halves of the wasm backend agree, and a kernel that crashes ends its run. */

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import type { StoredWeight } from "../../src/backends/backend.ts";
import { CONTROL, CONTROL_BYTES } from "../../src/backends/wasm/control.ts";
import { EngineMemory } from "../../src/backends/wasm/engine_memory.ts";
import {
  compileKernels,
  hasRelaxedSimd,
  instantiateKernels,
} from "../../src/backends/wasm/kernel_module.ts";
import { createWasmBackend } from "../../src/backends/wasm/mod.ts";
import { TAPE_OPCODE, TapeWriter } from "../../src/backends/wasm/tape_writer.ts";
import { WorkerPool } from "../../src/backends/wasm/worker_pool.ts";
import { HalftoneError } from "../../src/errors.ts";
import { OP_TABLE } from "../../src/ops/op_table.ts";
import type { ActivationOperand, Plan } from "../../src/plan/plan.ts";
import { weightBytes } from "../../src/quantization/layout_bytes.ts";
import { HostTensor } from "../../src/tensor/host_tensor.ts";

const RUST = new URL("../../kernels-wasm/src/", import.meta.url);

/** The numbers of a Rust file's constants, by their names in camel case. */
function rustConstants(file: string): Map<string, number> {
  const text = readFileSync(new URL(file, RUST), "utf8");
  const found = text.matchAll(/^const ([A-Z0-9_]+): (?:usize|u32) = (\d+);$/gm);
  const camel = (name: string) =>
    name.toLowerCase().replace(/_[a-z0-9]/g, (match) => match[1].toUpperCase());
  return new Map([...found].map(([, name, value]) => [camel(name), Number(value)]));
}

test("the host and the kernels agree on the control words", () => {
  const constants = rustConstants("control.rs");
  for (const [name, word] of Object.entries(CONTROL)) assert.equal(constants.get(name), word, name);
  for (const word of constants.values()) assert.ok(word * 4 < CONTROL_BYTES);
});

test("the host and the kernels agree on the opcodes of the tape", () => {
  const constants = rustConstants("tape.rs");
  for (const [name, opcode] of Object.entries(TAPE_OPCODE)) {
    assert.equal(constants.get(name), opcode, name);
  }
});

test("the relaxed build runs where relaxed SIMD is, the plain one when strict", async () => {
  for (const strict of [true, false]) {
    const backend = await createWasmBackend({ threads: 1, strict });
    assert.equal(backend.build, !strict && hasRelaxedSimd() ? "relaxed" : "plain");
    await backend.close();
  }
});

test("a worker that crashes ends the run of all, with its reason", async () => {
  const { pool, write } = await bareEngine(2);
  const tape = new TapeWriter();
  const outside = 0xfffffff0 | 0;
  // One tile: whoever takes it crashes, the other waits at the barrier and must be freed.
  tape.step(OP_TABLE.copy.opcode, 0, [
    ...[1, 1, 1, 1, 1, 8],
    outside,
    ...[0, 0, 0, 0, 0, 1],
    outside,
    ...[0, 0, 0, 0, 0, 1],
  ]);
  const failed = (error: unknown) =>
    error instanceof HalftoneError && error.code === "backend_failed" &&
    /out of bounds/i.test(error.message);
  try {
    await assert.rejects(pool.run(write(tape), tape.steps), failed);
    await assert.rejects(pool.run(write(tape), tape.steps), failed);
  } finally {
    pool.terminate();
  }
});

/** A pool over a memory with nothing in it but what the test writes. */
async function bareEngine(threads: number) {
  const { module } = await compileKernels({ strict: true, shared: true });
  const engine = new EngineMemory(true);
  const kernels = await instantiateKernels(module, engine.memory);
  engine.startAllocating(Number(kernels.__heap_base.value));
  const take = (bytes: number) => engine.allocator.allocate(bytes, "scratch");
  const control = take(CONTROL_BYTES);
  const workers = Array.from({ length: threads }, () => ({
    scratch: take(kernels.scratch_bytes()),
    stackTop: take(65536) + 65536,
  }));
  const controlWords = engine.words(control, CONTROL_BYTES / 4);
  const { memory } = engine;
  const pool = await WorkerPool.start({ module, memory, control, controlWords, workers });
  const write = (tape: TapeWriter) => {
    const address = take(tape.length * 4);
    tape.writeTo(engine.words(address, tape.length));
    return address;
  };
  return { pool, write };
}

test("addresses beyond 2 GiB work like any other", async () => {
  const far = 3.5 * 2 ** 30; // untouched pages cost nothing
  const near = await linearAt(0);
  assert.deepEqual(await linearAt(far), near);
  assert.ok(near.some((value) => value !== 0));
});

/** The bytes of a quantized linear layer whose buffers begin `offset` bytes into the arena. */
async function linearAt(offset: number): Promise<Uint8Array> {
  const [m, k, n] = [32, 64, 32];
  const matrix = (buffer: number, columns: number): ActivationOperand => ({
    kind: "activation",
    buffer,
    dtype: "float32",
    offset: 0,
    shape: [m, columns],
    strides: [columns, 1],
  });
  const scale = { kind: "float", dtype: "float32" } as const;
  const value = { kind: "integer", zeroPoint: 8 } as const;
  const layout = { bits: 4, value, groupSize: 32, scale, offset: null };
  const format = { kind: "quantized", layout } as const;
  const bytes = weightBytes([n, k], format);
  const [x, y] = [matrix(0, k), matrix(1, n)];
  const life = { firstStep: 0, lastStep: 0 };
  const plan: Plan = {
    name: "far",
    buffers: [
      { role: "input", bytes: m * k * 4, offset, ...life },
      { role: "output", bytes: m * n * 4, offset: offset + m * k * 4, ...life },
    ],
    steps: [{
      op: "linear",
      attributes: { activation: "gelu_tanh", activations: { kind: "float" } },
      inputs: [x, { kind: "weight", weight: 0 }, null, null, null],
      output: y,
    }],
    weights: [{ name: "w", shape: [n, k], format, arrangement: "rows", bytes }],
    inputs: { x },
    outputs: { y },
    constants: [],
    arenaBytes: offset + m * (k + n) * 4,
    weightBytes: bytes,
    hash: "",
  };
  const values = HostTensor.fromFloat32(new Float32Array(n * k / 32).fill(0.1));
  const stored: StoredWeight = {
    kind: "quantized",
    tensor: {
      shape: [n, k],
      layout,
      codes: Uint8Array.from({ length: n * k / 2 }, (_, index) => index * 37),
      scale: { kind: "float", values },
      offset: null,
    },
  };
  const backend = await createWasmBackend({ threads: 2 });
  try {
    const set = await backend.loadWeights(plan.weights, { read: () => Promise.resolve(stored) });
    const program = await backend.compile(plan, set);
    const input = Float32Array.from({ length: m * k }, (_, index) => Math.sin(index));
    program.write("x", HostTensor.fromFloat32(input, [m, k]));
    await program.run();
    return program.read("y").bytes;
  } finally {
    await backend.close();
  }
}
