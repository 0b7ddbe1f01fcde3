/** The zip archive that torch.save makes of an object without tensors, and torch.load reads. */

import { strToU8, zipSync } from "fflate";
import { pickle, type PickleValue } from "../quantization/python_pickle.ts";

/** An archive's name is that of its folder; torch.load takes any. */
const FOLDER = "archive";

/** The bytes of the file. Throws `invalid_argument` for a value that cannot be pickled. */
export function torchArchive(value: PickleValue): Uint8Array {
  const files = {
    [`${FOLDER}/data.pkl`]: pickle(value),
    [`${FOLDER}/byteorder`]: strToU8("little"),
    [`${FOLDER}/version`]: strToU8("3\n"),
  };
  // Nothing is compressed, as torch demands; one date for all, so that equal values give equal bytes.
  return zipSync(files, { level: 0, mtime: new Date(1980, 0, 1) });
}
