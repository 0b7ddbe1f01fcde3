/**
 * Generated files are fresh: every tools/generate_*.ts is run with --check, which changes nothing,
 * and every tools/check_*_fresh.ts as it is.
 */

import { spawnSync } from "node:child_process";
import { report, sourceFiles } from "./source_files.ts";

function faultsOf(script: string): string[] {
  const { status, stdout, stderr } = spawnSync(
    process.execPath,
    ["run", "-A", script, "--check"],
    { encoding: "utf8" },
  );
  return status === 0 ? [] : [`${script}: ${(stderr + stdout).trim()}`];
}

const scripts = sourceFiles(".ts")
  .filter((path) => /^tools\/(generate_\w+|check_\w+_fresh)\.ts$/.test(path));
report("generated files", scripts.flatMap(faultsOf));
