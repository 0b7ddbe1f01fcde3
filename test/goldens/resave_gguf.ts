/** Opens a GGUF file of a transformer and saves it again: resave_gguf.ts FROM TO CONFIG_FOLDER */

import process from "node:process";
import { FluxTransformer2DModel } from "../../mod.ts";

const [from, to, config] = process.argv.slice(2);
await using transformer = await FluxTransformer2DModel.fromSingleFile(from, { config });
await transformer.savePretrained(to);
