/** The SHA-256 of everything the committed WebAssembly modules are built from. */

import { createHash } from "node:crypto";
import { readdirSync, readFileSync } from "node:fs";

const ROOT = new URL("../kernels-wasm/", import.meta.url);

/** Hashes the names and texts of the Rust sources and of the build script. */
export function kernelSourceHash(): string {
  const sources = readdirSync(new URL("src/", ROOT)).filter((name) => name.endsWith(".rs")).sort();
  const hash = createHash("sha256");
  for (const name of ["Cargo.toml", "build.sh", ...sources.map((source) => `src/${source}`)]) {
    const text = readFileSync(new URL(name, ROOT), "utf8");
    hash.update(`${name}\0${text.replaceAll("\r\n", "\n")}\0`);
  }
  return hash.digest("hex");
}
