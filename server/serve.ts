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

/** Starts the endpoint. Throws `invalid_argument` for an address that would be open to others. */
export function startEndpoint(options: ServeOptions): RunningEndpoint {
  refuseOpenAddress(options);
  const ready = options.load();
  ready.catch(() => {}); // the caller awaits it too; until then a failure must not end the process
  const queue = new JobQueue(options.queueLength ?? DEFAULT_LIMITS.queueLength);
  const app = createApp(new ServerState(queue, ready), {
    ...(options.token === undefined ? {} : { token: options.token }),
    ...(options.onError === undefined ? {} : { onError: options.onError }),
    allowedHosts: isLoopback(options.hostname) ? "loopback" : "any",
  });
  const server = listen(options, (request) => app.fetch(request));
  return {
    url: `http://${urlHost(options.hostname)}:${server.port}`,
    ready,
    drain: (graceSeconds) => drain(queue, server, ready, graceSeconds),
  };
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
