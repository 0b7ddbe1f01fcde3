/** Which products of codes a library is trusted with: each kind is tried on known numbers when it is first asked for. */

import { HalftoneError } from "../../errors.ts";
import { type CodedOperands, type KnownProduct, knownProduct } from "./known_products.ts";
import type { MatmulProblem } from "./matmul_problem.ts";

/** Codes of warnings; docs/errors.md explains them. */
export const PRODUCT_WARNINGS = ["cuda_product_wrong", "cuda_product_refused"] as const;
type ProductWarning = typeof PRODUCT_WARNINGS[number];

/** Runs a known product on the device and gives its memory; null where the library has no algorithm for it. */
export type TryProduct = (product: KnownProduct) => Uint8Array | null;

/** What was found out about kinds of products. */
export class ProductTrust {
  readonly #library: string;
  readonly #warn: (message: string) => void;
  readonly #trusted = new Map<string, boolean>();
  readonly #told = new Set<string>();

  /** `library` is its name for people; `warn` is told once of each kind that others compute. */
  constructor(library: string, warn: (message: string) => void) {
    this.#library = library;
    this.#warn = warn;
  }

  /** Whether a problem may be given to the library. Floats were tested when the backend started. */
  allows(problem: MatmulProblem, run: TryProduct): boolean {
    if (!isCoded(problem)) return true;
    const kind = kindOf(problem);
    const known = this.#trusted.get(kind);
    if (known !== undefined) return known;
    const isTrusted = this.#isRight(problem, run);
    this.#trusted.set(kind, isTrusted);
    return isTrusted;
  }

  /** Tells once that the library does not take a kind of products that is its work. */
  refused(problem: MatmulProblem, reason: string): void {
    this.#tell("cuda_product_refused", problem, `does not take ${kindOf(problem)}`, reason);
  }

  #isRight(
    problem: MatmulProblem & { readonly operands: CodedOperands },
    run: TryProduct,
  ): boolean {
    const product = knownProduct(problem.operands, problem.scaling, problem.bias);
    try {
      const memory = run(product);
      const mistake = memory && product.mistake(memory);
      if (!mistake) return true;
      const { found, expected } = mistake;
      const reason = `found ${found}, expected ${expected}`;
      this.#tell("cuda_product_wrong", problem, `gets ${kindOf(problem)} wrong`, reason);
    } catch (error) {
      // The library's own failure; the driver's would be everybody's.
      const isLibrarys = error instanceof HalftoneError && error.code === "backend_failed" &&
        error.detail.field?.startsWith("cublasLt");
      if (!isLibrarys) throw error;
      this.refused(problem, error.message);
    }
    return false;
  }

  #tell(code: ProductWarning, problem: MatmulProblem, what: string, reason: string): void {
    const kind = kindOf(problem);
    if (this.#told.has(kind)) return;
    this.#told.add(kind);
    this.#warn(
      `[${code}] ${this.#library} ${what} here, so kernels of halftone's own take over (${reason})`,
    );
  }
}

/** Whether operands are codes. */
export function isCoded(
  problem: MatmulProblem,
): problem is MatmulProblem & { readonly operands: CodedOperands } {
  return problem.operands === "int8" || problem.operands === "float8_e4m3fn";
}

function kindOf({ operands, scaling, bias }: MatmulProblem): string {
  const scales = { none: "", tensor: " with a scale each", rows: " with a scale for each row" };
  return `products of ${operands}${scales[scaling]}${bias ? " and a bias" : ""}`;
}
