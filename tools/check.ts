/** The gate without the tests: runs every check, prints each one's result, fails if any failed. */

import { spawnSync } from "node:child_process";

const CHECKS: readonly (readonly [name: string, ...command: string[]])[] = [
  ["format", "fmt", "--check"],
  ["lint", "lint", "--quiet"],
  ["types", "check", "--quiet", "."],
  ["import directions", "run", "-A", "tools/check_imports.ts"],
  ["generated files", "run", "-A", "tools/check_generated.ts"],
  ["WebAssembly modules", "run", "-A", "tools/check_wasm_fresh.ts"],
  ["texts", "run", "-A", "tools/check_texts.ts"],
  ["documentation", "doc", "--lint", "--quiet", "mod.ts"],
  ["package", "publish", "--dry-run", "--allow-dirty", "--quiet"],
];

const only = process.argv.slice(2);
const failed: string[] = [];
for (const [name, ...command] of CHECKS) {
  if (only.length > 0 && !only.includes(name)) continue;
  const started = performance.now();
  // execPath: the same Deno, whether or not one is on the PATH.
  const { status, stdout, stderr } = spawnSync(process.execPath, command, { encoding: "utf8" });
  const seconds = ((performance.now() - started) / 1000).toFixed(1);
  console.log(`${status === 0 ? "ok    " : "FAILED"} ${name} (${seconds} s)`);
  if (status === 0) continue;
  failed.push(name);
  console.log(stdout + stderr);
}
if (failed.length > 0) {
  console.error(`The gate is closed: ${failed.join(", ")}`);
  process.exit(1);
}
