/** A backend as users of pipelines see it: something to make, share between pipelines, and close. */

import type { Backend, MemoryUse } from "../backends/backend.ts";
import { type BackendOptions, createBackend } from "../backends/select.ts";
import { HalftoneError } from "../errors.ts";

/** A running backend; pipelines that share one share its memory and threads. */
export interface BackendHandle {
  /** "reference", "wasm" or "cuda". */
  readonly name: string;
  /** Bytes in use now and at the most. */
  memory(): MemoryUse;
  /** Ends its workers and frees everything. */
  close(): Promise<void>;
}

/**
 * Makes a backend for one or more pipelines; whoever makes it closes it. Throws
 * `backend_unavailable` when the one asked for cannot start here.
 *
 * ```ts
 * const backend = await openBackend({ backend: "wasm", threads: 2 });
 * const pipe = await FluxPipeline.fromPretrained("models/demo", { backend });
 * ```
 */
export async function openBackend(options: BackendOptions = {}): Promise<BackendHandle> {
  return await createBackend(options);
}

/** The backend behind a handle. Throws `invalid_argument` for anything else. */
export function backendOf(handle: BackendHandle): Backend {
  const backend = handle as Partial<Backend> | null;
  if (typeof backend?.loadWeights === "function" && typeof backend.compile === "function") {
    return backend as Backend;
  }
  throw new HalftoneError("invalid_argument", "Cannot use this as a backend", {
    field: "backend",
    found: typeof handle,
    expected: "the name of a backend, or one made by openBackend",
  });
}
