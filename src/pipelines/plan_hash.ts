/** One hash for several plans. */

import { sha256 } from "@noble/hashes/sha2.js";
import { bytesToHex } from "@noble/hashes/utils.js";

/** The first 16 hex digits of the SHA-256 of the plans' hashes in order. */
export function combinedHash(hashes: readonly string[]): string {
  return bytesToHex(sha256(new TextEncoder().encode(hashes.join("\n")))).slice(0, 16);
}
