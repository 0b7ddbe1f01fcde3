/** Generated files are fresh: every tools/generate_*.ts is run with --check, which must change nothing. */

import { spawnSync } from "node:child_process";
import { report, sourceFiles } from "./source_files.ts";

function faultsOf(generator: string): string[] {
  const { status, stdout, stderr } = spawnSync(
    process.execPath,
    ["run", "-A", generator, "--check"],
    { encoding: "utf8" },
  );
  return status === 0 ? [] : [`${generator} --check: ${(stderr + stdout).trim()}`];
}

const generators = sourceFiles(".ts").filter((path) => /^tools\/generate_\w+\.ts$/.test(path));
report("generated files", generators.flatMap(faultsOf));
