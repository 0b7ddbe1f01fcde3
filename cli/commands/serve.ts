/** `halftone serve`: the endpoint. */

import { Command } from "commander";
import {
  environmentVariable,
  exitProcess,
  onInterrupt,
  writeText,
} from "../../src/runtime/system.ts";
import { isHubId } from "../../src/io/resolve_model.ts";
import { nameOf } from "../../src/runtime/files.ts";
import type { PictureMaker } from "../../server/picture_maker.ts";
import { type RunningEndpoint, startEndpoint } from "../../server/serve.ts";
import { startWorkerMaker } from "../../server/worker_maker.ts";
import { EXIT, failureOf } from "../failure.ts";
import { readGenerationDefaults } from "../generation_defaults.ts";
import { modelPath } from "../model_path.ts";
import { addModelOptions, integer, type ModelOptions } from "../options.ts";
import { pipelineOptions } from "../pipeline.ts";
import { createProgress } from "../progress.ts";

interface ServeOptions extends ModelOptions {
  readonly host: string;
  readonly port: number;
  readonly token?: string;
  readonly queue: number;
}

/** Seconds a running job gets to end after the first signal. */
const GRACE_SECONDS = 30;

/** The command. */
export function serveCommand(): Command {
  const command = new Command("serve")
    .description("Answer OpenAI's image requests over HTTP, on this machine only by default")
    .option(
      "--host <address>",
      "the address to listen on; others than loopback need --token",
      "127.0.0.1",
    )
    .option("--port <n>", "0 takes any free port", integer, 8000)
    .option("--token <token>", "demand this bearer token (or set HALFTONE_TOKEN)")
    .option("--queue <n>", "requests that may wait behind the running one", integer, 16);
  return addModelOptions(command).action(serve);
}

async function serve(options: ServeOptions): Promise<void> {
  const stopping = new AbortController();
  const endpoint = await startEndpoint({
    hostname: options.host,
    port: options.port,
    queueLength: options.queue,
    token: options.token ?? environmentVariable("HALFTONE_TOKEN"),
    load: () => load(options, stopping.signal),
    onError: (error) => say(failureOf(error).line),
  });
  say(`listening on ${endpoint.url}`);
  const failure = await Promise.race([untilStopped(stopping), failureOfLoading(endpoint)]);
  say("shutting down");
  await endpoint.drain(GRACE_SECONDS);
  if (failure !== undefined) throw failure;
}

/** Opens the pipeline on its own thread; the model's own values fill what a request leaves out. */
async function load(options: ServeOptions, signal: AbortSignal): Promise<PictureMaker> {
  const progress = createProgress();
  const path = await modelPath(options.model);
  const model = publicName(options.model, path);
  const defaults = await readGenerationDefaults(path);
  // A config is no plain data; the other thread makes it again from the flags checked here.
  const { quantizationConfig: _, ...plain } = await pipelineOptions(options, path);
  const { quantize, quantizeOuter } = options;
  const maker = await startWorkerMaker({
    setup: { path, model, defaults, options: plain, quantize, quantizeOuter },
    signal,
    onProgress: ({ stage, done, total }) => progress.show(`load ${stage}`, done, total, "weights"),
    onWarning: (message) => say(`warning: ${message}`),
  });
  progress.close();
  say(`ready: ${model}`);
  return maker;
}

/** A Hub id as it is; of a folder only its name, because clients need not know where it lies. */
function publicName(model: string | undefined, path: string): string {
  return model !== undefined && isHubId(model) ? model : nameOf(path.replace(/[/\\]+$/, ""));
}

/** Resolves on the first signal to end; the second ends the process. */
function untilStopped(stopping: AbortController): Promise<undefined> {
  return new Promise((resolve) => {
    onInterrupt(() => {
      if (stopping.signal.aborted) exitProcess(EXIT.failed);
      stopping.abort();
      resolve(undefined);
    });
  });
}

/** Resolves when the model cannot be loaded, and never when it can. */
async function failureOfLoading(endpoint: RunningEndpoint): Promise<unknown> {
  try {
    await endpoint.ready;
  } catch (error) {
    return error;
  }
  return await new Promise<never>(() => {});
}

function say(text: string): void {
  writeText(`${text}\n`, "stderr");
}
