/** A hash of source files, the same on every system. */

import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";

/** SHA-256 of names and texts, line ends as on Linux. */
export function hashSources(root: URL, names: readonly string[]): string {
  const hash = createHash("sha256");
  for (const name of names) {
    const text = readFileSync(new URL(name, root), "utf8");
    hash.update(`${name}\0${text.replaceAll("\r\n", "\n")}\0`);
  }
  return hash.digest("hex");
}
