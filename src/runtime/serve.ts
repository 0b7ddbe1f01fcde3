/** An HTTP server: `Deno.serve` and `Bun.serve` behind one small face. */

import { HalftoneError } from "../errors.ts";

/** Answers one request. */
export type RequestHandler = (request: Request) => Response | Promise<Response>;

/** How to listen. */
export interface ListenOptions {
  readonly hostname: string;
  /** 0 takes any free port. */
  readonly port: number;
}

/** A server that is listening. */
export interface ListeningServer {
  readonly hostname: string;
  readonly port: number;
  /** Takes no more connections, lets the requests under way end, then resolves. */
  stop(): Promise<void>;
  /** Closes every connection at once. */
  kill(): Promise<void>;
}

interface DenoServer {
  readonly addr: { readonly hostname: string; readonly port: number };
  readonly finished: Promise<void>;
  shutdown(): Promise<void>;
}

interface BunServer {
  readonly hostname: string;
  readonly port: number;
  readonly pendingRequests: number;
  stop(closeActive?: boolean): Promise<void>;
}

interface ServingRuntimes {
  Deno?: {
    serve(
      options: ListenOptions & { signal: AbortSignal; onListen: () => void },
      handler: RequestHandler,
    ): DenoServer;
  };
  Bun?: {
    serve(options: ListenOptions & { idleTimeout: number; fetch: RequestHandler }): BunServer;
  };
}

const runtimes = globalThis as unknown as ServingRuntimes;

/** Starts to listen. Throws `invalid_argument` when the address is taken, `unsupported` elsewhere. */
export function listen(options: ListenOptions, handler: RequestHandler): ListeningServer {
  try {
    if (runtimes.Deno !== undefined) return listenOnDeno(runtimes.Deno, options, handler);
    if (runtimes.Bun !== undefined) return listenOnBun(runtimes.Bun, options, handler);
  } catch (cause) {
    throw new HalftoneError("invalid_argument", "Cannot listen on the address", {
      found: `${options.hostname}:${options.port}`,
      remedy: `Choose another --port or --host (${cause instanceof Error ? cause.message : cause})`,
    }, cause);
  }
  throw new HalftoneError("unsupported", "Cannot serve outside Deno and Bun");
}

function listenOnDeno(
  deno: NonNullable<ServingRuntimes["Deno"]>,
  options: ListenOptions,
  handler: RequestHandler,
): ListeningServer {
  const killer = new AbortController();
  const server = deno.serve(
    { ...options, signal: killer.signal, onListen: () => {} },
    handler,
  );
  return {
    hostname: server.addr.hostname,
    port: server.addr.port,
    stop: () => server.shutdown(),
    kill: () => {
      killer.abort();
      return server.finished;
    },
  };
}

function listenOnBun(
  bun: NonNullable<ServingRuntimes["Bun"]>,
  options: ListenOptions,
  handler: RequestHandler,
): ListeningServer {
  // Without idleTimeout 0 Bun cuts a connection that is silent for ten seconds.
  const server = bun.serve({ ...options, idleTimeout: 0, fetch: handler });
  return {
    hostname: server.hostname,
    port: server.port,
    stop: async () => {
      // `stop()` alone also waits for idle keep-alive connections, which may never close.
      while (server.pendingRequests > 0) await new Promise((done) => setTimeout(done, 10));
      await server.stop(true);
    },
    kill: () => server.stop(true),
  };
}
