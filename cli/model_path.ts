/** Which folder a command means by `--model`. */

import { fileURLToPath } from "node:url";
import { HalftoneError } from "../src/errors.ts";
import { resolveModel } from "../src/io/resolve_model.ts";
import { statPath } from "../src/runtime/files.ts";

/** The demo model, beside this package's sources. */
const DEMO_MODEL = new URL("../models/demo", import.meta.url);

/**
 * The folder of `--model` (a folder or a Hub id), or of the demo model. Throws `model_not_found`,
 * and what a download throws.
 */
export async function modelPath(model: string | undefined): Promise<string> {
  return model === undefined ? await demoModelPath() : await resolveModel(model);
}

async function demoModelPath(): Promise<string> {
  if (DEMO_MODEL.protocol === "file:") {
    const path = fileURLToPath(DEMO_MODEL);
    if (await statPath(path) !== undefined) return path;
  }
  throw new HalftoneError("model_not_found", "Cannot find the demo model beside the package", {
    remedy:
      "The published package leaves it out: give --model, or run in a clone of the repository.",
  });
}
