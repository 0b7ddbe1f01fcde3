/** A Hub on this machine, small and faulty on demand. */

import { createHash } from "node:crypto";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";

/** How a file is served. */
export type Fault =
  | "none"
  | "truncated"
  | "too long"
  | "bit flip"
  | "cut connection"
  | "cut connection, then ranges"
  | "cut connection, then all"
  | "cut connection, then wrong ranges"
  | "stall"
  | "missing"
  | "redirect"
  | "server error";

/** A running fake Hub with one repository, owner/model. */
export interface FakeHub {
  readonly endpoint: string;
  /** The paths asked for so far. */
  readonly requests: string[];
  /** The authorization headers that came. */
  readonly tokens: (string | undefined)[];
  /** Faults by file path. */
  readonly faults: Map<string, Fault>;
  close(): Promise<void>;
}

/** The commit that the fake Hub's main branch stands at. */
export const COMMIT = "1234567890abcdef1234567890abcdef12345678";

const hashOf = (algorithm: string, ...parts: (string | Uint8Array)[]) =>
  parts.reduce((hash, part) => hash.update(part), createHash(algorithm)).digest("hex");

/** The listing entry of a file: weights are in LFS with SHA-256, the rest has git's SHA-1. */
export function sibling(path: string, content: Uint8Array): Record<string, unknown> {
  const size = content.byteLength;
  const blobId = hashOf("sha1", `blob ${size}\0`, content);
  const lfs = { sha256: hashOf("sha256", content), size, pointerSize: 134 };
  return path.endsWith(".safetensors")
    ? { rfilename: path, size, blobId, lfs }
    : { rfilename: path, size, blobId };
}

/** Starts a server on 127.0.0.1; `extra` entries are listed beside the files. */
export async function startHub(
  files: Record<string, Uint8Array>,
  extra: Record<string, unknown>[] = [],
): Promise<FakeHub> {
  const hub = {
    requests: [] as string[],
    tokens: [] as (string | undefined)[],
    faults: new Map<string, Fault>(),
  };
  const server = createServer((request, response) => {
    hub.requests.push(request.url!);
    hub.tokens.push(request.headers.authorization);
    answer(request, response, files, extra, hub.faults);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  const close = () => {
    server.closeAllConnections();
    return new Promise<void>((resolve) => server.close(() => resolve()));
  };
  return { ...hub, endpoint: `http://127.0.0.1:${port}`, close };
}

function answer(
  request: IncomingMessage,
  response: ServerResponse,
  files: Record<string, Uint8Array>,
  extra: Record<string, unknown>[],
  faults: Map<string, Fault>,
): void {
  const path = request.url!;
  if (path === "/api/models/owner/model/revision/main?blobs=true") {
    const siblings = Object.entries(files).map(([name, content]) => sibling(name, content));
    response.end(JSON.stringify({ sha: COMMIT, siblings: [...siblings, ...extra] }));
    return;
  }
  if (path.startsWith("/api/models/owner/gated/")) return fail(response, 401);
  const prefix = [`/owner/model/resolve/${COMMIT}/`, "/cdn/"].find((start) =>
    path.startsWith(start)
  );
  const name = prefix === undefined ? "" : decodeURIComponent(path.slice(prefix.length));
  if (files[name] === undefined) return fail(response, 404);
  const fault = prefix === "/cdn/" ? "none" : faults.get(name) ?? "none";
  const from = /^bytes=(\d+)-$/.exec(request.headers.range ?? "")?.[1];
  if (from === undefined) serve(response, files[name], fault, `/cdn/${name}`);
  else serveRest(response, files[name], Number(from), fault);
}

function fail(response: ServerResponse, status: number): void {
  response.statusCode = status;
  response.end("no");
}

function serve(response: ServerResponse, content: Uint8Array, fault: Fault, cdn: string): void {
  const half = content.slice(0, content.byteLength >> 1);
  switch (fault) {
    case "missing":
      return fail(response, 404);
    case "server error":
      return fail(response, 503);
    case "redirect":
      response.setHeader("location", cdn);
      return fail(response, 302);
    case "truncated":
      return void response.end(half);
    case "too long":
      return void response.end(Uint8Array.of(...content, 0));
    case "bit flip":
      return void response.end(content.map((byte, i) => i === 0 ? byte ^ 1 : byte));
    case "cut connection":
    case "cut connection, then ranges":
    case "cut connection, then all":
    case "cut connection, then wrong ranges":
      response.setHeader("content-length", content.byteLength);
      // Long enough that the half is read: Bun forgets what comes together with the end.
      response.write(half, () => setTimeout(() => response.destroy(), 200));
      return;
    case "stall":
      response.setHeader("content-length", content.byteLength);
      return void response.write(half);
    default:
      response.end(content);
  }
}

/** Answers a request for the bytes from `from` on, which comes when a connection broke. */
function serveRest(response: ServerResponse, content: Uint8Array, from: number, fault: Fault) {
  if (fault === "cut connection, then all") return void response.end(content);
  if (!fault.startsWith("cut connection, then")) return serve(response, content, fault, "");
  const first = fault.endsWith("wrong ranges") ? from + 1 : from;
  response.statusCode = 206;
  response.setHeader(
    "content-range",
    `bytes ${first}-${content.byteLength - 1}/${content.byteLength}`,
  );
  response.end(content.subarray(first));
}
