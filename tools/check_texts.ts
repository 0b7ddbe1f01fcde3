/** No registry addresses in lock files or anywhere else, and no word that does not belong here. */

import { readFileSync } from "node:fs";
import { report, sourceFiles } from "./source_files.ts";

// Written in pieces, so that this file passes its own check.
const FORBIDDEN: readonly { pattern: RegExp; reason: string }[] = [
  {
    pattern: new RegExp(["registry", "npmjs", "org"].join("\\.")),
    reason: "names a registry host",
  },
  {
    pattern: new RegExp(["files", "pythonhosted", "org"].join("\\.")),
    reason: "names a registry host",
  },
  {
    pattern: new RegExp(["registry", "yarnpkg", "com"].join("\\.")),
    reason: "names a registry host",
  },
  { pattern: /"resolved": *"https?:/, reason: "records a download address" },
  { pattern: new RegExp("^(<{7}|>{7}) ", "m"), reason: "holds a merge conflict" },
  {
    pattern: new RegExp(`\\b(${["FIX", "ME"].join("")}|${["X", "XX"].join("")})\\b`),
    reason: "holds an open mark",
  },
  {
    pattern: new RegExp(["", "work", "(main|shared)", ""].join("/")),
    reason: "names a private folder",
  },
  { pattern: new RegExp(["", "tmp", "w", ""].join("/")), reason: "names a private folder" },
];
const TEXT = /\.(ts|js|mjs|md|json|lock|toml|rs|py|sh|txt|yml|yaml)$|^\.ci\/|^LICENSE$/;

/** Packed bytes in base64, which may hold any word by chance. */
const PACKED = /[A-Za-z0-9+/=]{1000,}/g;

function faultsOf(path: string): string[] {
  const text = readFileSync(path, "utf8").replace(PACKED, "");
  return FORBIDDEN.filter(({ pattern }) => pattern.test(text))
    .map(({ reason }) => `${path}: ${reason}`);
}

report("texts", sourceFiles().filter((path) => TEXT.test(path)).flatMap(faultsOf));
