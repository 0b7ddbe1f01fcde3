/** Converting a model folder component by component, a component's folder, or one file. */

import { isModelFolder, listComponents } from "../src/io/model_folder.ts";
import { writeModelFolder } from "../src/io/write_checkpoint.ts";
import { joinPath } from "../src/runtime/files.ts";
import { openCheckpoint } from "../src/io/checkpoint.ts";
import { byteText } from "./byte_text.ts";

/** What becomes of the checkpoints. */
export interface Conversion {
  /** The components of a model folder to convert; the others are copied. */
  choose(names: readonly string[], folder: string): Promise<readonly string[]>;
  /** Converts a component's folder (of that name), or one file when there is no name. */
  convert(source: string, destination: string, name: string | undefined): Promise<unknown>;
}

/** Converts and returns a line per component: its name, bytes before and after. */
export async function convertModel(
  source: string,
  destination: string,
  conversion: Conversion,
): Promise<string[]> {
  if (!await isModelFolder(source)) {
    await conversion.convert(source, destination, undefined);
    return [await sizeLine(destination, source, destination)];
  }
  const components = (await listComponents(source)).filter(({ weights }) => weights !== undefined);
  const chosen = await conversion.choose(components.map(({ name }) => name), source);
  await writeModelFolder(source, destination, chosen, async (folder) => {
    for (const name of chosen) {
      await conversion.convert(joinPath(source, name), joinPath(folder, name), name);
    }
  });
  const pathsOf = (name: string) => [joinPath(source, name), joinPath(destination, name)] as const;
  return await Promise.all(chosen.map((name) => sizeLine(name, ...pathsOf(name))));
}

/** A line with the bytes of weights before and after. */
export async function sizeLine(name: string, source: string, destination: string): Promise<string> {
  const [before, after] = [await weightBytes(source), await weightBytes(destination)];
  return `${name}: ${byteText(before)} -> ${byteText(after)}`;
}

async function weightBytes(path: string): Promise<number> {
  const checkpoint = await openCheckpoint(path, { variantFallback: true });
  await checkpoint.close();
  return [...checkpoint.entries.values()].reduce((sum, { bytes }) => sum + bytes, 0);
}
