/** Tokenizers from their folders. */

import { HalftoneError } from "../errors.ts";
import { joinPath, readTextFile, statPath } from "../runtime/files.ts";
import { ClipTokenizer } from "../tokenizers/clip.ts";
import { TOKENIZER_FILE_NAMES, type TokenizerFiles } from "../tokenizers/files.ts";
import { T5Tokenizer } from "../tokenizers/t5.ts";

/** No real vocabulary file is larger. */
const MAX_FILE_BYTES = 64 * 2 ** 20;

/** CLIP's tokenizer of a folder. Throws `missing_file`, `invalid_config`. */
export async function loadClipTokenizer(folder: string): Promise<ClipTokenizer> {
  const files = await readTokenizerFiles(folder);
  return inFolder(folder, () => ClipTokenizer.fromFiles(files));
}

/** T5's tokenizer of a folder. Throws `missing_file`, `invalid_config`. */
export async function loadT5Tokenizer(folder: string): Promise<T5Tokenizer> {
  const files = await readTokenizerFiles(folder);
  return inFolder(folder, () => T5Tokenizer.fromFiles(files));
}

/** Tokenizers know the names of their files, not where they lie. */
function inFolder<Result>(folder: string, action: () => Result): Result {
  try {
    return action();
  } catch (error) {
    if (!(error instanceof HalftoneError)) throw error;
    throw error.inFile(joinPath(folder, error.detail.file ?? ""));
  }
}

async function readTokenizerFiles(folder: string): Promise<TokenizerFiles> {
  const files: TokenizerFiles = {};
  for (const key of Object.keys(TOKENIZER_FILE_NAMES) as (keyof TokenizerFiles)[]) {
    const path = joinPath(folder, TOKENIZER_FILE_NAMES[key]);
    if (await statPath(path)) files[key] = await readTextFile(path, MAX_FILE_BYTES);
  }
  return files;
}
