/** NVIDIA's C headers, as far as they say how functions are called and what numbers are. */

import { existsSync, readFileSync } from "node:fs";
import process from "node:process";
import { pythonPackageFolders } from "../../src/backends/cuda/library_paths.ts";
import type { ForeignSignature, ForeignType } from "../../src/runtime/foreign.ts";

/** Folders of headers in Python's packages: those of NVIDIA, and those that Triton brings along. */
const PACKAGE_FOLDERS = [
  "nvidia/cu13/include",
  "nvidia/cuda_runtime/include",
  "triton/backends/nvidia/include",
];

/** The first folder that has all these headers: CUDA_HOME's, or one of a Python on the path; null where none has. */
export async function headerFolder(...names: readonly string[]): Promise<string | null> {
  const { CUDA_HOME } = process.env;
  const packages = (await pythonPackageFolders())
    .flatMap((folder) => PACKAGE_FOLDERS.map((inside) => `${folder}/${inside}`));
  const folders = [...CUDA_HOME ? [`${CUDA_HOME}/include`] : [], ...packages];
  return folders.find((folder) => names.every((name) => existsSync(`${folder}/${name}`))) ?? null;
}

/** Headers that were read together. */
export class Header {
  readonly #text: string;
  readonly #types = new Map<string, string>();
  /** What a header calls a symbol. */
  readonly #macros = new Map<string, string>();
  /** Results and parameters by name. */
  readonly #declarations = new Map<string, [result: string, parameters: string][]>();

  constructor(paths: readonly string[]) {
    const texts = paths.map((path) => readFileSync(path, "utf8"));
    this.#text = texts.join("\n").replace(/\/\*.*?\*\//gs, "").replace(/\/\/.*/g, "");
    // Of several the first counts, which is that for 64 bits.
    for (const [, type, name] of this.#text.matchAll(/^[ \t]*typedef ([\w *]+[ *])(\w+);/gm)) {
      if (!this.#types.has(name!)) this.#types.set(name!, type!);
    }
    for (const [, name] of this.#text.matchAll(/^}\s*(\w+);/gm)) this.#types.set(name!, "int");
    const macros = /^[ \t]*#define[ \t]+(\w+)[ \t]+(?:__CUDA_API_PTSZ\()?(\w+)/gm;
    for (const [, name, symbol] of this.#text.matchAll(macros)) this.#macros.set(symbol!, name!);
    const declarations =
      /^([\w *]+)\b(?:CUDAAPI|CUBLASWINAPI|CUDNNWINAPI)\s+(\w+)\s*\(([^)]*)\);/gm;
    for (const [, result, name, parameters] of this.#text.matchAll(declarations)) {
      const others = this.#declarations.get(name!) ?? [];
      this.#declarations.set(name!, [...others, [result!.trim(), parameters!]]);
    }
  }

  /** The numbers of enumerations, those that are counted among them, and of macros. */
  numbers(): Map<string, number> {
    const found = new Map<string, number>();
    for (const [, name, value] of this.#text.matchAll(/^#define[ \t]+(\w+)[ \t]+(\w+)/gm)) {
      found.set(name!, Number(value));
    }
    for (const [, body] of this.#text.matchAll(/\benum\b[^{};]*{([^}]*)}/g)) {
      let next = 0;
      for (const entry of body!.replace(/^\s*#.*/gm, "").split(",")) {
        const [, name, value] = /^\s*(\w+)[^=]*(?:=\s*(\w+)\s*)?$/.exec(entry) ?? [];
        next = value === undefined ? next : Number(value);
        if (name !== undefined) found.set(name, next++);
      }
    }
    return found;
  }

  /** How a symbol of a library is called, in every way that it is declared; a header may name it by a macro. */
  signatures(symbol: string): ForeignSignature[] {
    const names = [symbol, this.#macros.get(symbol)];
    return names.flatMap((name) => this.#declarations.get(name ?? "") ?? [])
      .map(([result, parameters]) => ({
        parameters: parameters.split(",").map((one) => one.trim())
          .filter((one) => one !== "void" && one !== "").map((one) => this.#typeOfParameter(one)),
        result: result === "void" ? "void" : this.#typeOf(result),
      }));
  }

  /** Whether a symbol is called so in one of these ways. */
  declares(symbol: string, signature: ForeignSignature): boolean {
    return this.signatures(symbol).some((declared) =>
      declared.result === signature.result &&
      declared.parameters.join() === signature.parameters.join()
    );
  }

  #typeOfParameter(declaration: string): ForeignType {
    return declaration.includes("[") ? "u64" : this.#typeOf(declaration.replace(/\b\w+$/, ""));
  }

  #typeOf(declared: string): ForeignType {
    const type = declared.replace(/\bconst\b|__device_builtin__/g, "").trim();
    if (type.includes("*")) return "u64";
    if (/^(size_t|u?int64_t|unsigned long long)$/.test(type)) return "u64";
    if (/^(unsigned int|uint32_t)$/.test(type)) return "u32";
    if (/^(int|int32_t|enum \w+)$/.test(type)) return "i32";
    const known = this.#types.get(type);
    if (known === undefined) throw new TypeError(`the header does not say what ${type} is`);
    return this.#typeOf(known);
  }
}
