/**
 * Writes the constants of the op table for the kernels: Rust to kernels-wasm/src/opcodes.rs, C++ to
 * kernels-cuda/opcodes.h. With `--check` it only fails when a file is not what it would write.
 */

import { readFileSync, writeFileSync } from "node:fs";
import process from "node:process";
import { CODE_DTYPES, CODE_ROUNDINGS } from "../src/ops/activation_mode.ts";
import {
  BINARY_KINDS,
  NORM_KINDS,
  OP_NAMES,
  OP_TABLE,
  REDUCE_KINDS,
  UNARY_KINDS,
} from "../src/ops/op_table.ts";

function snake(prefix: string, name: string): string {
  return `${prefix}_${name.replace(/[A-Z]/g, (letter) => `_${letter}`).toUpperCase()}`;
}

function constant(prefix: string, name: string, value: number): string {
  return `pub const ${snake(prefix, name)}: u32 = ${value};`;
}

function kinds(prefix: string, names: readonly string[]): string[] {
  return names.map((name, index) => constant(prefix, name, index));
}

function rustSource(): string {
  return [
    "//! Generated from src/ops/op_table.ts by tools/generate_opcodes.ts; do not edit.",
    "#![allow(dead_code)]",
    "",
    ...OP_NAMES.map((name) => constant("OP", name, OP_TABLE[name].opcode)),
    ...kinds("UNARY", UNARY_KINDS),
    ...kinds("BINARY", BINARY_KINDS),
    ...kinds("REDUCE", REDUCE_KINDS),
    ...kinds("NORM", NORM_KINDS),
    ...kinds("CODE_DTYPE", CODE_DTYPES),
    ...kinds("CODE_ROUNDING", CODE_ROUNDINGS),
    "",
  ].join("\n");
}

/** The kinds of each op; the CUDA kernels are launched by name, so they need no opcodes. */
function cudaSource(): string {
  const enumeration = (prefix: string, names: readonly string[]) =>
    `enum { ${names.map((name) => snake(prefix, name)).join(", ")} };`;
  return [
    "// Generated from src/ops/op_table.ts by tools/generate_opcodes.ts; do not edit.",
    "#pragma once",
    "",
    enumeration("UNARY", UNARY_KINDS),
    enumeration("BINARY", BINARY_KINDS),
    enumeration("REDUCE", REDUCE_KINDS),
    enumeration("NORM", NORM_KINDS),
    "",
  ].join("\n");
}

const FILES = {
  "kernels-wasm/src/opcodes.rs": rustSource(),
  "kernels-cuda/opcodes.h": cudaSource(),
};
for (const [path, source] of Object.entries(FILES)) {
  const url = new URL(`../${path}`, import.meta.url);
  if (!process.argv.includes("--check")) {
    writeFileSync(url, source);
  } else if (readFileSync(url, "utf8") !== source) {
    console.error(`${path} is stale: run deno run -A tools/generate_opcodes.ts`);
    process.exitCode = 1;
  }
}
