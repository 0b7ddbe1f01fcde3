/** Reads the files of a tokenizer folder for the tests. */

import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { TOKENIZER_FILE_NAMES, type TokenizerFiles } from "../../src/tokenizers/files.ts";

/** The texts of the tokenizer files a folder has. */
export function readTokenizerFolder(folder: string): TokenizerFiles {
  const files: TokenizerFiles = {};
  for (const [key, name] of Object.entries(TOKENIZER_FILE_NAMES)) {
    const path = join(folder, name);
    if (existsSync(path)) files[key as keyof TokenizerFiles] = readFileSync(path, "utf8");
  }
  return files;
}
