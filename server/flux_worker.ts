/** The thread that makes pictures; started by `startWorkerMaker`. */

import { HalftoneError } from "../src/errors.ts";
import { FluxPipeline } from "../src/pipelines/flux.ts";
import { parseQuantizeFlags } from "../src/quantization/formats.ts";
import { createFluxMaker } from "./flux_maker.ts";
import type { PictureJob, PictureMaker } from "./picture_maker.ts";
import {
  type MakerAnswer,
  type MakerRequest,
  OPENING,
  type PipelineSetup,
  type PlainError,
} from "./worker_protocol.ts";

interface WorkerScope {
  onmessage: ((event: MessageEvent<MakerRequest>) => void) | null;
  postMessage(message: MakerAnswer, transfer?: ArrayBufferLike[]): void;
}

const scope = globalThis as unknown as WorkerScope;
const running = new Map<number, AbortController>();
let maker: PictureMaker | undefined;

scope.onmessage = ({ data }) => void handle(data);

async function handle(request: MakerRequest): Promise<void> {
  switch (request.kind) {
    case "open":
      return await watched(OPENING, (signal) => open(request.setup, signal));
    case "make":
      return await watched(request.id, (signal) => make(request.id, request.job, signal));
    case "abort":
      return running.get(request.id)?.abort();
    case "close":
      await maker?.close();
      return scope.postMessage({ kind: "closed" });
  }
}

async function watched(id: number, action: (signal: AbortSignal) => Promise<void>): Promise<void> {
  const controller = new AbortController();
  running.set(id, controller);
  try {
    await action(controller.signal);
  } catch (error) {
    scope.postMessage({ kind: "failed", id, error: plainError(error) });
  } finally {
    running.delete(id);
  }
}

async function open(setup: PipelineSetup, signal: AbortSignal): Promise<void> {
  const { path, model, defaults: { maxSequenceLength, ...defaults } } = setup;
  const pipeline = await FluxPipeline.fromPretrained(path, {
    ...setup.options,
    quantizationConfig: parseQuantizeFlags(setup.quantize, setup),
    signal,
    onProgress: (progress) => scope.postMessage({ kind: "progress", progress }),
    onWarning: warn,
  });
  maker = createFluxMaker({ pipeline, model, defaults, maxSequenceLength });
  scope.postMessage({ kind: "opened" });
}

/** Later warnings quote prompts, and those are the clients' own. */
function warn(message: string): void {
  if (running.has(OPENING)) scope.postMessage({ kind: "warning", message });
}

async function make(id: number, job: PictureJob, signal: AbortSignal): Promise<void> {
  const made = await maker!.make(job, signal);
  scope.postMessage({ kind: "made", id, made }, made.files.map((file) => file.buffer));
}

function plainError(error: unknown): PlainError {
  if (error instanceof HalftoneError) return { code: error.code, message: error.message };
  return { message: error instanceof Error ? error.stack ?? error.message : String(error) };
}
