/** Hashes of streams; the Web's own digest takes whole buffers only. */

import { builtin } from "./node.ts";

/** A running hash. */
export interface StreamHash {
  /** Adds bytes. */
  update(bytes: Uint8Array): void;
  /** The hash in hexadecimal; ends the stream. */
  digest(): string;
}

/** Starts a hash of the given kind. */
export function createStreamHash(algorithm: "sha256" | "sha1"): StreamHash {
  const hash = builtin("node:crypto").createHash(algorithm);
  return { update: (bytes) => void hash.update(bytes), digest: () => hash.digest("hex") };
}
