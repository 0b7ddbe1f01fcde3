/**
 * Writes the Rust constants of the op table to kernels-wasm/src/opcodes.rs; with `--check` it only
 * fails when the file is not what it would write.
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

const PATH = new URL("../kernels-wasm/src/opcodes.rs", import.meta.url);

function constant(prefix: string, name: string, value: number): string {
  const snake = name.replace(/[A-Z]/g, (letter) => `_${letter}`).toUpperCase();
  return `pub const ${prefix}_${snake}: u32 = ${value};`;
}

function kinds(prefix: string, names: readonly string[]): string[] {
  return names.map((name, index) => constant(prefix, name, index));
}

function opcodesSource(): string {
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

const source = opcodesSource();
if (!process.argv.includes("--check")) {
  writeFileSync(PATH, source);
} else if (readFileSync(PATH, "utf8") !== source) {
  console.error("kernels-wasm/src/opcodes.rs is stale: run deno run -A tools/generate_opcodes.ts");
  process.exit(1);
}
