/**
 * An HTTP server: `node:http` on Deno and `Bun.serve` behind one small face. Not `Deno.serve`: when a
 * body comes in a later packet than its headers, as many clients send it, it does not notice that the
 * client goes away (seen with Deno 2.9).
 */

import { getRequestListener } from "@hono/node-server";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
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

interface BunServer {
  readonly hostname: string;
  readonly port: number;
  readonly pendingRequests: number;
  stop(closeActive?: boolean): Promise<void>;
}

interface ServingRuntimes {
  Deno?: unknown;
  Bun?: {
    serve(options: ListenOptions & { idleTimeout: number; fetch: RequestHandler }): BunServer;
  };
}

const runtimes = globalThis as unknown as ServingRuntimes;

/** Starts to listen. Throws `invalid_argument` when the address is taken, `unsupported` elsewhere. */
export async function listen(
  options: ListenOptions,
  handler: RequestHandler,
): Promise<ListeningServer> {
  try {
    if (runtimes.Deno !== undefined) return await listenOnDeno(options, handler);
    if (runtimes.Bun !== undefined) return listenOnBun(runtimes.Bun, options, handler);
  } catch (cause) {
    throw new HalftoneError("invalid_argument", "Cannot listen on the address", {
      found: `${options.hostname}:${options.port}`,
      remedy: `Choose another --port or --host (${cause instanceof Error ? cause.message : cause})`,
    }, cause);
  }
  throw new HalftoneError("unsupported", "Cannot serve outside Deno and Bun");
}

async function listenOnDeno(
  { hostname, port }: ListenOptions,
  handler: RequestHandler,
): Promise<ListeningServer> {
  const server = createServer(getRequestListener(handler, { overrideGlobalObjects: false }));
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    server.listen(port, hostname, resolve);
  });
  const address = server.address() as AddressInfo;
  return {
    hostname: address.address,
    port: address.port,
    stop: () => closed(server),
    kill: () => {
      server.closeAllConnections();
      return closed(server);
    },
  };
}

/** Resolves when the requests under way have ended. */
async function closed(server: Server): Promise<void> {
  // Connections that are kept alive become idle one by one, and would never close by themselves.
  const timer = setInterval(() => server.closeIdleConnections(), 10);
  await new Promise<void>((resolve) => server.close(() => resolve()));
  clearInterval(timer);
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
