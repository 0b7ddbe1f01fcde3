/** What the tests of this folder share. */

import assert from "node:assert/strict";
import { mkdtemp, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { type ErrorCode, HalftoneError } from "../../src/errors.ts";

/** A safetensors file from its header (text or value) and the number of data bytes, all zero. */
export function safetensorsFile(
  header: unknown,
  dataBytes = 0,
  headerLength?: number | bigint,
): Uint8Array {
  const text = typeof header === "string" ? header : JSON.stringify(header);
  return joined(text, new Uint8Array(dataBytes), headerLength);
}

/** Header length, header (text or bytes) and data in one. */
export function joined(
  header: string | Uint8Array,
  data: Uint8Array,
  headerLength?: number | bigint,
): Uint8Array {
  const body = typeof header === "string" ? new TextEncoder().encode(header) : header;
  const file = new Uint8Array(8 + body.byteLength + data.byteLength);
  new DataView(file.buffer).setBigUint64(0, BigInt(headerLength ?? body.byteLength), true);
  file.set(body, 8);
  file.set(data, 8 + body.byteLength);
  return file;
}

/** Runs an action in a new folder and deletes the folder afterwards. */
export async function inFolder(action: (folder: string) => Promise<void>): Promise<void> {
  const folder = await mkdtemp(`${tmpdir()}/halftone-test-`);
  try {
    await action(folder);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

/** The names in a folder, sorted: runtimes list them in different orders. */
export async function namesIn(folder: string): Promise<string[]> {
  return (await readdir(folder)).sort();
}

/** Asserts that an action fails with a code, and with a message that matches. */
export async function rejects(
  action: () => unknown,
  code: ErrorCode,
  message: RegExp = /^Cannot /,
): Promise<HalftoneError> {
  try {
    await action();
  } catch (error) {
    if (!(error instanceof HalftoneError)) throw error;
    assert.equal(error.code, code, error.message);
    assert.match(error.message, message);
    return error;
  }
  assert.fail(`nothing thrown, expected ${code}`);
}
