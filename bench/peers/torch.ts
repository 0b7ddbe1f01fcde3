/** PyTorch, in a Python of its own. */

import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { startChild } from "../suite/child_contender.ts";
import type { Contender } from "../suite/measure.ts";

/**
 * A case of torch_peer.py; `inputs` are given to it as files. With a limit in seconds it must do the work once within
 * that time before it may take part.
 */
export async function openTorch(
  name: string,
  python: string,
  words: readonly (string | number)[],
  inputs: readonly Float32Array<ArrayBuffer>[],
  limit?: number,
): Promise<Contender> {
  const folder = mkdtempSync(join(tmpdir(), "halftone-bench-"));
  try {
    const files = inputs.map((values, index) => {
      const path = join(folder, `${index}.f32`);
      writeFileSync(path, new Uint8Array(values.buffer));
      return path;
    });
    const script = fileURLToPath(new URL("./torch_peer.py", import.meta.url));
    return await startChild(name, python, [script, ...words.map(String), ...files], {}, limit);
  } finally {
    rmSync(folder, { recursive: true });
  }
}
