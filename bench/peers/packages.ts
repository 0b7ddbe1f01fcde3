/** The npm packages of bench/peers, which stand outside halftone's own dependencies. */

import { execFileSync } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { fileURLToPath } from "node:url";

const FOLDER = new URL("./", import.meta.url);

/** Where a file of an installed package lies. */
export function packageFile(path: string): URL {
  return new URL(`node_modules/${path}`, FOLDER);
}

/** Installs the packages where they are missing, by the lock file; their own scripts do not run. */
export function installPeers(): void {
  if (existsSync(packageFile("onnxruntime-web/package.json"))) return;
  execFileSync("npm", ["ci", "--ignore-scripts", "--no-audit", "--no-fund"], {
    cwd: fileURLToPath(FOLDER),
    stdio: "inherit",
  });
}

/** Loads a package by its name, as node would. */
export function requirePackage(name: string) {
  return createRequire(new URL("package.json", FOLDER))(name);
}

/** The installed version of a package; throws when it is not there. */
export function packageVersion(name: string): string {
  const file = packageFile(`${name}/package.json`);
  if (!existsSync(file)) throw new Error(`${name} is not installed: run npm ci in bench/peers`);
  return JSON.parse(readFileSync(file, "utf8")).version;
}
