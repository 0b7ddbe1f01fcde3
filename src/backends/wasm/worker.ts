/**
 * A worker of the wasm backend: walks tapes, or (as the loader) brings weights into the streaming slots.
 * Between runs it sits in its event loop, never in `Atomics.wait`: a blocked worker cannot be ended.
 */

import { CONTROL, CONTROL_BYTES, markDead, mustStop } from "./control.ts";
import { instantiateKernels, type KernelExports } from "./kernel_module.ts";
import { OutsideUnits } from "./outside_units.ts";
import type { HostMessage, SegmentCopy, WorkerMessage } from "./worker_messages.ts";

interface WorkerScope {
  onmessage: ((event: MessageEvent<HostMessage>) => void) | null;
  postMessage(message: WorkerMessage): void;
}

const scope = globalThis as unknown as WorkerScope;
/** How long the loader sleeps before it looks whether the run has ended. */
const LOADER_PATIENCE_MS = 20;

type StartMessage = Extract<HostMessage, { kind: "start" }>;

let kernels: KernelExports;
let start: StartMessage;
let memory: WebAssembly.Memory;
let control: Int32Array;
const units = new OutsideUnits();
const programs = new Map<number, readonly (readonly SegmentCopy[])[]>();

scope.onmessage = (event) => {
  handle(event.data).catch((error) => {
    if (control) markDead(control);
    const reason = error instanceof Error ? `${error.name}: ${error.message}` : String(error);
    scope.postMessage({ kind: "failed", reason });
  });
};

async function handle(message: HostMessage): Promise<void> {
  switch (message.kind) {
    case "start":
      return await startKernels(message);
    case "run":
      return message.timed ? runTimed(message.tape, message.timed) : runTape(message);
    case "start_loader":
      shareMemory(message.memory, message.control);
      return scope.postMessage({ kind: "ready" });
    case "add_unit":
      return units.add(message.id, message.unit);
    case "free_units":
      units.free(message.ids);
      return scope.postMessage({ kind: "freed" });
    case "add_program":
      programs.set(message.program, message.segments);
      return;
    case "remove_program":
      programs.delete(message.program);
      return;
    case "load":
      return loadSegments(programs.get(message.program) ?? []);
  }
}

function shareMemory(shared: WebAssembly.Memory, controlAddress: number): void {
  memory = shared;
  control = new Int32Array(memory.buffer, controlAddress, CONTROL_BYTES / 4);
}

async function startKernels(message: StartMessage): Promise<void> {
  start = message;
  shareMemory(message.memory, message.control);
  kernels = await instantiateKernels(message.module, message.memory);
  kernels.__stack_pointer.value = message.stackTop;
  scope.postMessage({ kind: "ready" });
}

function runTape({ tape, steps }: { tape: number; steps: number }): void {
  scope.postMessage({ kind: "done", status: walk(tape, steps) });
}

function walk(tape: number, steps: number): number {
  const { thread, threads, scratch } = start;
  return kernels.run_tape(tape, steps, start.control, thread, threads, scratch);
}

/** Walks step by step; a step's milliseconds end when its barrier opens. */
function runTimed(tape: number, starts: readonly number[]): void {
  const times = new Float64Array(starts.length);
  let status = 0;
  for (let step = 0; step < starts.length && status === 0; step++) {
    const before = performance.now();
    status = walk(tape + starts[step], 1);
    times[step] = performance.now() - before;
  }
  scope.postMessage({ kind: "done", status, times });
}

/** Copies segment after segment, at most two ahead of the one the kernels have finished. */
function loadSegments(segments: readonly (readonly SegmentCopy[])[]): void {
  memory.grow(0); // another thread may have grown it; this refreshes `memory.buffer` here
  for (let segment = 0; segment < segments.length; segment++) {
    if (!waitForSlot(segment)) break;
    for (const { unit, to } of segments[segment]) units.copy(unit, memory, to);
    Atomics.store(control, CONTROL.loaded, segment + 1);
    Atomics.notify(control, CONTROL.loaded);
  }
  scope.postMessage({ kind: "done", status: 0 });
}

/** Waits until the slot of `segment` is free; false when the run has ended. */
function waitForSlot(segment: number): boolean {
  while (!mustStop(control)) {
    const consumed = Atomics.load(control, CONTROL.consumed);
    if (segment - consumed < 2) return true;
    Atomics.wait(control, CONTROL.consumed, consumed, LOADER_PATIENCE_MS);
  }
  return false;
}
