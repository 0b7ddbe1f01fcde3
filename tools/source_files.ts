/** The files of the repository, as git sees them: tracked, and new ones that are not ignored. */

import { execFileSync } from "node:child_process";
import { existsSync } from "node:fs";

/** Paths from the repository's root, sorted. */
export function sourceFiles(extension = ""): string[] {
  // In a container the checkout often belongs to another user, which git refuses unless told.
  const command = [
    "-c",
    "safe.directory=*",
    "ls-files",
    "--cached",
    "--others",
    "--exclude-standard",
  ];
  const listed = execFileSync("git", command, { encoding: "utf8" });
  return [...new Set(listed.split("\n"))]
    .filter((path) => path !== "" && path.endsWith(extension) && existsSync(path))
    .sort();
}

/** Prints the faults and ends with their count as failure, or says that all is well. */
export function report(subject: string, faults: readonly string[]): void {
  for (const fault of faults) console.error(fault);
  console.log(`${subject}: ${faults.length === 0 ? "ok" : `${faults.length} faults`}`);
  if (faults.length > 0) process.exitCode = 1;
}
