/** The SHA-256 of everything the committed WebAssembly modules are built from. */

import { readdirSync } from "node:fs";
import { hashSources } from "./source_hash.ts";

/** Hashes the sources of the wasm backend's kernels. */
export function kernelSourceHash(): string {
  return sourceHash(new URL("../kernels-wasm/", import.meta.url));
}

/** Hashes the sources of the kernels that quantize. */
export function quantizeSourceHash(): string {
  return sourceHash(new URL("../kernels-quantize/", import.meta.url));
}

/** Hashes the names and texts of the Rust sources and of the build script. */
function sourceHash(root: URL): string {
  const sources = readdirSync(new URL("src/", root)).filter((name) => name.endsWith(".rs")).sort();
  return hashSources(root, ["Cargo.toml", "build.sh", ...sources.map((source) => `src/${source}`)]);
}
