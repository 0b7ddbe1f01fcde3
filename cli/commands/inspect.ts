/** `halftone inspect`: the tensors, formats and sizes of a model, a component or one file. */

import { Command } from "commander";
import { HalftoneError } from "../../src/errors.ts";
import { type Checkpoint, openCheckpoint } from "../../src/io/checkpoint.ts";
import { isModelFolder, listComponents } from "../../src/io/model_folder.ts";
import { statPath } from "../../src/runtime/files.ts";
import { writeText } from "../../src/runtime/system.ts";
import { byteText, tableText } from "../byte_text.ts";

/** A tensor as it is listed. */
interface TensorRow {
  readonly name: string;
  readonly format: string;
  readonly shape: readonly number[];
  readonly bytes: number;
}

/** A component, or the file that was given. */
interface ComponentReport {
  readonly name: string;
  readonly path: string;
  readonly bytes: number;
  /** Bytes per format. */
  readonly formats: Readonly<Record<string, number>>;
  readonly tensors: readonly TensorRow[];
}

/** The command. */
export function inspectCommand(): Command {
  return new Command("inspect")
    .description("List the tensors, formats and sizes of a model folder, a component or a file")
    .argument("<path>", "a model folder, a component's folder, or a .safetensors file")
    .option("--json", "print one JSON object")
    .action(inspect);
}

async function inspect(path: string, options: { json?: true }): Promise<void> {
  const components = await inspectPath(path);
  const bytes = components.reduce((sum, component) => sum + component.bytes, 0);
  const text = options.json
    ? JSON.stringify({ path, bytes, components }, null, 2)
    : [...components.map(componentText), `total ${byteText(bytes)}`].join("\n\n");
  writeText(`${text}\n`);
}

async function inspectPath(path: string): Promise<ComponentReport[]> {
  if (await statPath(path) === undefined) {
    throw new HalftoneError("missing_file", "Cannot inspect", {
      file: path,
      found: "nothing at this path",
      remedy: "Check the path.",
    });
  }
  if (!await isModelFolder(path)) return [await inspectWeights("weights", path)];
  const withWeights = (await listComponents(path)).filter((component) => component.weights);
  const reports: ComponentReport[] = [];
  for (const { name, path } of withWeights) reports.push(await inspectWeights(name, path));
  return reports;
}

async function inspectWeights(name: string, path: string): Promise<ComponentReport> {
  const checkpoint = await openCheckpoint(path);
  try {
    return reportOf(name, path, rowsOf(checkpoint));
  } finally {
    await checkpoint.close();
  }
}

function rowsOf(checkpoint: Checkpoint): TensorRow[] {
  return [...checkpoint.entries.values()]
    .map(({ name, dtype, shape, bytes }) => ({ name, format: dtype, shape, bytes }));
}

function reportOf(name: string, path: string, tensors: readonly TensorRow[]): ComponentReport {
  const formats: Record<string, number> = {};
  let bytes = 0;
  for (const tensor of tensors) {
    bytes += tensor.bytes;
    formats[tensor.format] = (formats[tensor.format] ?? 0) + tensor.bytes;
  }
  return { name, path, bytes, formats, tensors };
}

function componentText({ name, path, bytes, formats, tensors }: ComponentReport): string {
  const kinds = Object.entries(formats).map(([format, size]) => `${byteText(size)} ${format}`);
  const rows = tensors.map((tensor) => [
    `  ${tensor.name}`,
    `[${tensor.shape.join(", ")}]`,
    tensor.format,
    byteText(tensor.bytes),
  ]);
  const count = `${tensors.length} tensors, ${byteText(bytes)} (${kinds.join(", ")})`;
  return `${name}: ${count}\n${path}\n${tableText(rows, [3])}`;
}
