/** Imports point one way, and only some folders know a runtime. */

import { readFileSync } from "node:fs";
import { posix } from "node:path";
import { layerOf, LAYERS, RUNTIME_FOLDERS } from "./import_rules.ts";
import { report, sourceFiles } from "./source_files.ts";

/** One import statement. */
interface Import {
  readonly specifier: string;
  readonly typeOnly: boolean;
}

const STATEMENT = /^\s*(import|export)\b([^;"']*?)\bfrom\s*["']([^"']+)["']/gm;
const BARE_OR_DYNAMIC = /\bimport\s*\(?\s*["']([^"']+)["']/g;
// A runtime's own names, or a test for one, outside the seam.
const RUNTIME_NAMES = /\b(?:Deno|Bun|process|Buffer)\s*\.|globalThis\.(?:Deno|Bun|process)\b/;

function importsOf(source: string): Import[] {
  const statements = [...source.matchAll(STATEMENT)].map(([, , clause, specifier]) => ({
    specifier: specifier!,
    typeOnly: isTypeOnly(clause!),
  }));
  const others = [...source.matchAll(BARE_OR_DYNAMIC)].map(([, specifier]) => ({
    specifier: specifier!,
    typeOnly: false,
  }));
  return [...statements, ...others];
}

function isTypeOnly(clause: string): boolean {
  if (/^\s*type\b/.test(clause)) return true;
  const names = /^\s*\{([^}]*)\}\s*$/.exec(clause)?.[1]?.split(",").map((name) => name.trim());
  return names?.filter(Boolean).every((name) => name.startsWith("type ")) ?? false;
}

function withoutComments(source: string): string {
  return source.replace(/\/\*[\s\S]*?\*\//g, (text) => text.replace(/[^\n]/g, " "))
    .replace(/(^|\s)\/\/.*$/gm, "$1");
}

function directionFault(path: string, found: Import): string | undefined {
  const from = layerOf(path);
  if (from === undefined || !found.specifier.startsWith(".")) return undefined;
  const target = posix.join(posix.dirname(path), found.specifier);
  const to = layerOf(target);
  const layer = LAYERS[from];
  if (layer === undefined) return `${path}: folder ${from} has no rule in tools/import_rules.ts`;
  const allowed = from === to || layer.files?.includes(target) ||
    (to !== undefined && layer.uses.includes(to)) ||
    (to !== undefined && found.typeOnly && layer.types?.includes(to));
  return allowed
    ? undefined
    : `${path}: ${from} may not import ${found.typeOnly ? "types of " : ""}${target}`;
}

function runtimeFaults(path: string, source: string, imports: readonly Import[]): string[] {
  if (RUNTIME_FOLDERS.some((folder) => path.startsWith(folder))) return [];
  const modules = imports.filter(({ specifier }) => specifier.startsWith("node:"))
    .map(({ specifier }) => `${path}: ${specifier} belongs behind src/runtime`);
  const lines = withoutComments(source).split("\n");
  const names = lines.flatMap((line, index) =>
    RUNTIME_NAMES.test(line) ? [`${path}:${index + 1}: names a runtime outside src/runtime`] : []
  );
  return [...modules, ...names];
}

function faultsOf(path: string): string[] {
  const source = readFileSync(path, "utf8");
  const imports = importsOf(withoutComments(source));
  const directions = imports.map((found) => directionFault(path, found));
  return [
    ...directions.filter((fault) => fault !== undefined),
    ...runtimeFaults(path, source, imports),
  ];
}

report("import directions", sourceFiles(".ts").flatMap(faultsOf));
