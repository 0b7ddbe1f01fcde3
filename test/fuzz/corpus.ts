/** The inputs that once broke something, kept as files that every later run reads again. */

import { mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { Buffer } from "node:buffer";

const FOLDER = new URL("corpus/", import.meta.url);

/** An input that failed. */
export interface KeptInput {
  readonly target: string;
  readonly seed: number;
  readonly failure: string;
  readonly input: unknown;
}

/** All kept inputs. */
export function readCorpus(): KeptInput[] {
  return readdirSync(FOLDER).filter((name) => name.endsWith(".json")).sort()
    .map((name) => JSON.parse(readFileSync(new URL(name, FOLDER), "utf8"), revive));
}

/** Keeps an input; returns the name of its file. */
export function keepInput(kept: KeptInput): string {
  mkdirSync(FOLDER, { recursive: true });
  const name = `${kept.target.replaceAll(/\W+/g, "_")}_${kept.seed}.json`;
  writeFileSync(new URL(name, FOLDER), `${JSON.stringify(kept, spell, 2)}\n`);
  return name;
}

function spell(_key: string, value: unknown): unknown {
  return value instanceof Uint8Array ? { base64: Buffer.from(value).toString("base64") } : value;
}

function revive(_key: string, value: unknown): unknown {
  const { base64, ...others } = (value ?? {}) as { base64?: unknown };
  if (typeof base64 !== "string" || Object.keys(others).length > 0) return value;
  return new Uint8Array(Buffer.from(base64, "base64"));
}
