/**
 * What `bench formats` has found so far, kept beside its table until that is written, so that an interrupted
 * comparison can go on: a picture and a row per format.
 */

import { decode } from "fast-png";
import { HalftoneError } from "../../src/errors.ts";
import { PipelineImage } from "../../src/pipelines/image.ts";
import { writeAtomic } from "../../src/runtime/atomic_file.ts";
import {
  joinPath,
  makeFolder,
  readFile,
  readTextFile,
  remove,
  statPath,
} from "../../src/runtime/files.ts";
import type { FormatResult } from "./format_report.ts";

/** A format as the table and the sheet have it. */
export interface ComparedFormat {
  readonly result: FormatResult;
  readonly image: PipelineImage;
}

/** The folder of a comparison that has not come to its end. */
export class UnfinishedBench {
  readonly #folder: string;

  private constructor(folder: string) {
    this.#folder = folder;
  }

  /**
   * Opens the folder, an empty one unless an earlier comparison is to go on. Throws `invalid_argument` when
   * that had other settings.
   */
  static async open(
    folder: string,
    settings: Readonly<Record<string, unknown>>,
    resume: boolean,
  ): Promise<UnfinishedBench> {
    const text = `${JSON.stringify(settings, null, 2)}\n`;
    const path = joinPath(folder, "settings.json");
    if (resume && await statPath(path)) checkSettings(folder, await readTextFile(path), text);
    else await remove(folder);
    await makeFolder(folder);
    await writeAtomic(path, text);
    return new UnfinishedBench(folder);
  }

  /** What was kept of a format; undefined when nothing was. */
  async find(name: string): Promise<ComparedFormat | undefined> {
    const path = this.#path(name, "json");
    if (!await statPath(path)) return undefined;
    const result = JSON.parse(await readTextFile(path)) as FormatResult;
    const { width, height, data } = decode(await readFile(this.#path(name, "png")));
    return { result, image: new PipelineImage(width, height, new Uint8Array(data)) };
  }

  /** Keeps a format; its row last, because that is what counts. */
  async keep(name: string, { result, image }: ComparedFormat): Promise<void> {
    await image.save(this.#path(name, "png"));
    await writeAtomic(this.#path(name, "json"), JSON.stringify(result));
  }

  /** Deletes everything. */
  async remove(): Promise<void> {
    await remove(this.#folder);
  }

  #path(name: string, extension: string): string {
    return joinPath(this.#folder, `${name.replace(":", "_")}.${extension}`);
  }
}

function checkSettings(folder: string, found: string, expected: string): void {
  if (found === expected) return;
  throw new HalftoneError("invalid_argument", "Cannot go on with a comparison of other settings", {
    field: "--resume",
    file: folder,
    found: found.replaceAll(/\s+/g, " ").trim(),
    expected: expected.replaceAll(/\s+/g, " ").trim(),
    remedy: "Give the same options, or begin anew without --resume",
  });
}
