/** The SHA-256 of everything the committed CUDA kernels are built from. */

import { readdirSync } from "node:fs";
import { hashSources } from "./source_hash.ts";

const ROOT = new URL("../kernels-cuda/", import.meta.url);

/** Hashes the names and texts of the kernels and of the build script; the stand-in is not built in. */
export function cudaSourceHash(): string {
  const sources = readdirSync(ROOT).filter((name) => /\.(cu|h)$/.test(name)).sort();
  return hashSources(ROOT, ["build.sh", ...sources]);
}
