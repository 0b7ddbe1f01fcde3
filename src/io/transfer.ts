/**
 * The bytes of one file over as many connections as it takes: where one breaks or falls silent, the
 * next asks for the rest (`Range`), so that hours of a large download are not lost to a moment.
 */

import { HalftoneError } from "../errors.ts";

const STALL_TIMEOUT = 30_000;
const RETRY_DELAY = 1_000;

/** How many connections in a row may bring nothing before the file is given up. */
const FRUITLESS_CONNECTIONS = 4;

/** How patient a transfer is. */
export interface TransferOptions {
  /** How long a connection may bring nothing, in milliseconds; 30,000 unless given. */
  readonly stallTimeout?: number;
  /**
   * The pause before a broken connection is made again, in milliseconds, doubled each time one
   * brought nothing; 1,000 unless given.
   */
  readonly retryDelay?: number;
  /** Ends the transfer. */
  readonly signal?: AbortSignal;
}

/**
 * Yields the bytes of a file of `size` bytes in order. `open` sends the request with the headers it
 * is given. Ends early or late when the server does; throws `aborted`, what `open` throws as a
 * `HalftoneError`, and the last connection's error when four in a row brought nothing.
 */
export async function* transfer(
  open: (headers: Record<string, string>) => Promise<Response>,
  size: number,
  options: TransferOptions,
): AsyncGenerator<Uint8Array> {
  let done = 0;
  let fruitless = 0;
  while (true) {
    const start = done;
    let broken: unknown;
    try {
      for await (const bytes of connection(open, start, options)) {
        done += bytes.byteLength;
        yield bytes;
      }
    } catch (error) {
      throwIfAborted(options.signal);
      if (error instanceof HalftoneError) throw error;
      broken = error;
    }
    fruitless = done > start ? 0 : fruitless + 1;
    const isOver = done >= size || fruitless === FRUITLESS_CONNECTIONS;
    if (isOver && done < size && broken !== undefined) throw broken;
    if (isOver) return;
    await pause((options.retryDelay ?? RETRY_DELAY) * 2 ** fruitless, options.signal);
  }
}

/** What one connection brings of the bytes from `start` on. */
async function* connection(
  open: (headers: Record<string, string>) => Promise<Response>,
  start: number,
  options: TransferOptions,
): AsyncGenerator<Uint8Array> {
  const response = await open(start === 0 ? {} : { range: `bytes=${start}-` });
  // A server that knows no ranges sends the file from its first byte.
  let skip = start - firstByte(response, start);
  for await (const bytes of chunks(response, options)) {
    const rest = bytes.subarray(Math.min(skip, bytes.byteLength));
    skip -= bytes.byteLength - rest.byteLength;
    if (rest.byteLength > 0) yield rest;
  }
}

/** Where in the file a response begins: at `start` or before. */
function firstByte(response: Response, start: number): number {
  if (response.status !== 206) return 0;
  const range = response.headers.get("content-range");
  const first = Number(/^bytes (\d+)-/.exec(range ?? "")?.[1] ?? Infinity);
  if (first <= start) return first;
  throw new Error(`asked for bytes from ${start} on, the server sent the range "${range}"`);
}

/** The body piece by piece; ends with an error when nothing comes for too long. */
async function* chunks(
  response: Response,
  options: TransferOptions,
): AsyncGenerator<Uint8Array> {
  const reader = response.body?.getReader();
  if (reader === undefined) return;
  try {
    while (true) {
      const { done, value } = await withTimeout(
        reader.read(),
        options.stallTimeout ?? STALL_TIMEOUT,
      );
      throwIfAborted(options.signal);
      if (done) return;
      yield value;
    }
  } finally {
    await reader.cancel().catch(() => {});
  }
}

async function withTimeout<Result>(promise: Promise<Result>, milliseconds: number) {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const stalled = new Promise<never>((_, reject) => {
    const error = new Error(`nothing came for ${milliseconds / 1000} s`);
    timer = setTimeout(() => reject(error), milliseconds);
  });
  try {
    return await Promise.race([promise, stalled]);
  } finally {
    clearTimeout(timer);
  }
}

/** Waits, or throws `aborted` as soon as the transfer is cancelled. */
async function pause(milliseconds: number, signal?: AbortSignal): Promise<void> {
  await new Promise<void>((resolve) => {
    const timer = setTimeout(resolve, milliseconds);
    signal?.addEventListener("abort", () => (clearTimeout(timer), resolve()), { once: true });
  });
  throwIfAborted(signal);
}

/** Throws `aborted` when the download was cancelled. */
export function throwIfAborted(signal?: AbortSignal): void {
  if (signal?.aborted) {
    throw new HalftoneError(
      "aborted",
      "Cannot go on: the download was cancelled",
      {},
      signal.reason,
    );
  }
}
