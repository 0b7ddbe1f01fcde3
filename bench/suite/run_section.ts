/** Runs one section in a process of its own: run_section.ts NAME OPTIONS_AS_JSON RESULT_FILE. */

import { writeFileSync } from "node:fs";
import process from "node:process";
import type { SectionOptions } from "./section.ts";
import { SECTIONS } from "./sections.ts";
import { thisMachine } from "../machine.ts";

const [name, options, file] = process.argv.slice(2) as [string, string, string];
const machine = thisMachine();
const result = await SECTIONS[name]!.run(JSON.parse(options) as SectionOptions);
writeFileSync(file, `${JSON.stringify({ machine, ...result }, null, 2)}\n`);
process.exit(0); // some peers leave workers behind
