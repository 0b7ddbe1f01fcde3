/** Which folder may import which: the layers of docs/architecture.md as data. */

/** What a layer may import. */
export interface Layer {
  /** Layers whose code it may use. */
  readonly uses: readonly string[];
  /** Layers of which it may use types only. */
  readonly types?: readonly string[];
  /** Single files of other layers, or of none, that it may use beside these. */
  readonly files?: readonly string[];
}

const FOUNDATION = ["errors", "tensor", "runtime"];
const MODEL_SIDE = [...FOUNDATION, "ops", "plan", "quantization", "io"];
const EVERYTHING = [
  ...MODEL_SIDE,
  "backends",
  "tokenizers",
  "schedulers",
  "models",
  "pipelines",
];

// The arithmetic of the one weight layout, which knows no method.
const LAYOUT_FILES = ["codes", "dequantize", "layout_bytes"]
  .map((name) => `src/quantization/${name}.ts`);

/** Layers in order; a layer may always import itself. */
export const LAYERS: Readonly<Record<string, Layer>> = {
  errors: { uses: [] },
  tensor: { uses: ["errors"] },
  runtime: { uses: ["errors", "tensor"] },
  quantization: {
    uses: FOUNDATION,
    types: ["ops", "plan", "backends", "io"],
    // Which modes there are, and their names: it knows no op.
    files: ["src/ops/activation_mode.ts"],
  },
  ops: { uses: FOUNDATION, types: ["plan", "quantization"] },
  plan: {
    uses: [...FOUNDATION, "ops"],
    types: ["quantization"],
    files: ["src/quantization/layout_bytes.ts"],
  },
  backends: {
    uses: [...FOUNDATION, "ops", "plan"],
    types: ["quantization"],
    files: LAYOUT_FILES,
  },
  io: { uses: [...FOUNDATION, "quantization"] },
  tokenizers: { uses: [...FOUNDATION, "io"] },
  schedulers: { uses: [...FOUNDATION, "io"] },
  models: { uses: MODEL_SIDE, types: ["backends"] },
  pipelines: { uses: EVERYTHING },
  public: { uses: EVERYTHING },
  server: { uses: EVERYTHING },
  cli: { uses: [...EVERYTHING, "server"], files: ["package.json"] },
};

/** Folders whose files may use `node:` modules and the names of a runtime. */
export const RUNTIME_FOLDERS: readonly string[] = [
  "src/runtime/",
  "cli/",
  "server/",
  "test/",
  "bench/",
  "tools/",
];

/** The layer a file belongs to, or undefined where no rule holds (tests, tools, benchmarks). */
export function layerOf(path: string): string | undefined {
  if (path === "mod.ts") return "public";
  if (path === "src/errors.ts") return "errors";
  const [top, second] = path.split("/");
  if (top === "src") return second;
  return top === "server" || top === "cli" ? top : undefined;
}
