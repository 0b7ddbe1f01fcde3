/** Starts the endpoint: listens at once, loads the model beside, drains on the first signal. */

import { HalftoneError } from "../src/errors.ts";
import { listen, type ListeningServer } from "../src/runtime/serve.ts";
import { createApp } from "./app.ts";
import { isLoopback } from "./guards.ts";
import { JobQueue } from "./job_queue.ts";
import { DEFAULT_LIMITS } from "./limits.ts";
import type { PictureMaker } from "./picture_maker.ts";
import { ServerState } from "./server_state.ts";

/** How to serve. */
export interface ServeOptions {
  /** The address to listen on; other than loopback only with a token. */
  readonly hostname: string;
  /** 0 takes any free port. */
  readonly port: number;
  /** Demanded as a bearer token when given. */
  readonly token?: string;
  /** Jobs that may wait behind the running one. */
  readonly queueLength?: number;
  /** Loads the model. */
  readonly load: () => Promise<PictureMaker>;
  /** Told of every failure inside the server. */
  readonly onError?: (error: unknown) => void;
}

/** A running endpoint. */
export interface RunningEndpoint {
  readonly url: string;
  /** Resolves when the model is loaded; rejects when it cannot be. */
  readonly ready: Promise<PictureMaker>;
  /** Fails the waiting jobs, lets the running one end within the given time, frees the model. */
  drain(graceSeconds: number): Promise<void>;
}

const MIN_TOKEN_LENGTH = 8;

/** Starts the endpoint. Throws `invalid_argument` for an address that is taken or open to others. */
export async function startEndpoint(options: ServeOptions): Promise<RunningEndpoint> {
  const { hostname, queueLength = DEFAULT_LIMITS.queueLength } = options;
  refuseOpenAddress(options);
  refuseNegative("--queue", queueLength);
  const loading = Promise.withResolvers<PictureMaker>();
  const queue = new JobQueue(queueLength);
  const app = createApp(new ServerState(queue, loading.promise), {
    ...(options.token === undefined ? {} : { token: options.token }),
    ...(options.onError === undefined ? {} : { onError: options.onError }),
    allowedHosts: isLoopback(hostname) ? "loopback" : "any",
  });
  const server = await listen(options, (request) => app.fetch(request));
  // Only now: a model that loads for an address that is taken would keep the process alive.
  options.load().then(loading.resolve, loading.reject);
  return {
    url: `http://${urlHost(hostname)}:${server.port}`,
    ready: loading.promise,
    drain: (graceSeconds) => drain(queue, server, loading.promise, graceSeconds),
  };
}

function refuseNegative(field: string, found: number): void {
  if (found >= 0) return;
  const detail = { field, found, expected: "a number of at least 0" };
  throw new HalftoneError("invalid_argument", "Cannot serve with this option", detail);
}

function refuseOpenAddress({ hostname, token }: ServeOptions): void {
  if (token !== undefined && token.length < MIN_TOKEN_LENGTH) {
    throw new HalftoneError("invalid_argument", "Cannot use so short a token", {
      field: "--token",
      expected: `at least ${MIN_TOKEN_LENGTH} characters`,
    });
  }
  if (isLoopback(hostname) || token !== undefined) return;
  throw new HalftoneError("invalid_argument", "Cannot serve to other machines without a token", {
    field: "--host",
    found: hostname,
    remedy: "Give --token, or listen on 127.0.0.1.",
  });
}

async function drain(
  queue: JobQueue,
  server: ListeningServer,
  ready: Promise<PictureMaker>,
  graceSeconds: number,
): Promise<void> {
  const inTime = await within(graceSeconds, async () => {
    await queue.drain();
    await server.stop();
  });
  if (!inTime) await server.kill(); // the running job's signal fires, so it ends within a step
  await queue.drain();
  const maker = await ready.catch(() => undefined);
  await maker?.close();
}

/** Whether an action ends in time. */
async function within(seconds: number, action: () => Promise<void>): Promise<boolean> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const late = new Promise<boolean>((resolve) => {
    timer = setTimeout(() => resolve(false), seconds * 1000);
  });
  const result = await Promise.race([action().then(() => true), late]);
  clearTimeout(timer);
  return result;
}

function urlHost(hostname: string): string {
  return hostname.includes(":") && !hostname.startsWith("[") ? `[${hostname}]` : hostname;
}
