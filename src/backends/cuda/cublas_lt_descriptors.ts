/**
 * Descriptors of a product for cuBLASLt. The library thinks in columns: a row-major [rows, columns] matrix is a
 * [columns, rows] one there. So output = x · weightᵀ is asked for as outputᵀ = A · B, where A is the weight
 * [k, n] transposed, B is x [k, m], and C and D are what is added and the output [n, m]. What lies column by column here
 * is transposed the other way.
 */

import { addressOf } from "../../runtime/foreign.ts";
import type { CublasLtCalls } from "./cublas_lt_calls.ts";
import {
  COMPUTE_TYPE,
  CUBLAS_STATUS,
  type CublasLtFunction,
  DATA_TYPE,
  DESC,
  EPILOGUE,
  HEURISTIC,
  LAYOUT,
  OPERATION,
  PREFERENCE,
  REDUCTION_SCHEME,
  SCALE_MODE,
} from "./cublas_lt_symbols.ts";
import type { MatmulAddresses, MatmulBatch, MatmulProblem } from "./matmul_problem.ts";
import { isCoded } from "./product_trust.ts";

const ACTIVATION_FLAG = { identity: 0, relu: EPILOGUE.relu, gelu_tanh: EPILOGUE.gelu } as const;
/** Algorithms that are asked for. */
const CANDIDATES = 8;

/** An algorithm and the workspace it needs. */
export interface Algorithm {
  readonly bytes: Uint8Array<ArrayBuffer>;
  readonly workspaceBytes: number;
}

/** The descriptors of one product; `free` gives them back. */
export class MatmulDescriptors {
  readonly operation: number;
  readonly weight: number;
  readonly x: number;
  readonly added: number;
  readonly output: number;
  readonly #calls: CublasLtCalls;
  readonly #made: [destroy: CublasLtFunction, handle: number][] = [];

  /** On failure nothing stays. */
  constructor(calls: CublasLtCalls, problem: MatmulProblem) {
    this.#calls = calls;
    const { m, n, k, operands } = problem;
    const addedStride = problem.addedStride || problem.outputStride;
    try {
      this.operation = this.#makeOperation(problem);
      const { batch, xStride, weightStride } = problem;
      const type = DATA_TYPE[operands];
      const weight = problem.weightByColumns ? [n, k] as const : [k, n] as const;
      const x = problem.xByColumns ? [m, k] as const : [k, m] as const;
      this.weight = this.#makeLayout(type, weight, weightStride, [batch, batch?.weight]);
      this.x = this.#makeLayout(type, x, xStride, [batch, batch?.x]);
      const results = DATA_TYPE[operands === "int8" ? "int32" : problem.results ?? "float32"];
      const outputs = [batch, batch?.output] as const;
      this.added = this.#makeLayout(results, [n, m], addedStride, outputs);
      this.output = this.#makeLayout(results, [n, m], problem.outputStride, outputs);
    } catch (error) {
      this.free();
      throw error;
    }
  }

  /**
   * What the library can do it by within the workspace, its first choice first; none when it cannot. `onInvalid` is
   * told where it has not even heard of such codes.
   */
  algorithms(
    handle: number,
    problem: MatmulProblem,
    onInvalid?: (why: string) => void,
  ): Algorithm[] {
    const preference = this.makePreference(problem);
    const results = new Uint8Array(new ArrayBuffer(CANDIDATES * HEURISTIC.bytes));
    const count = new Int32Array(new ArrayBuffer(4));
    const name = "cublasLtMatmulAlgoGetHeuristic";
    const status = this.#calls.try(
      name,
      handle,
      this.operation,
      this.weight,
      this.x,
      this.added,
      this.output,
      preference,
      CANDIDATES,
      addressOf(results),
      addressOf(count),
    );
    // Of small codes a version may not know the combination; of floats it would be a mistake of ours.
    if (isCoded(problem) && status === CUBLAS_STATUS.invalidValue) {
      onInvalid?.(this.#calls.textOf(status));
      return [];
    }
    const isAllowed = this.#calls.allows(status, name, "choose how to multiply matrices");
    return isAllowed ? fittingAlgorithms(results, count[0]!, problem.workspaceBytes) : [];
  }

  /** The next product's bias and scales; the library reads them when the product is enqueued. */
  setVectors(
    { bias, scaling }: MatmulProblem,
    addresses: Pick<MatmulAddresses, "bias" | "xScales" | "weightScales">,
  ): void {
    if (bias) this.#setWord(this.operation, DESC.biasPointer, addresses.bias);
    if (scaling === "none") return;
    this.#setWord(this.operation, DESC.scalePointerA, addresses.weightScales);
    this.#setWord(this.operation, DESC.scalePointerB, addresses.xScales);
  }

  /** Gives everything back. */
  free(): void {
    for (const [destroy, handle] of this.#made.splice(0)) this.#calls.try(destroy, handle);
  }

  #makeOperation(problem: MatmulProblem): number {
    const { bias, activation, scaling } = problem;
    const operation = this.#make(
      "cublasLtMatmulDescCreate",
      "cublasLtMatmulDescDestroy",
      computeType(problem),
      problem.operands === "int8" ? DATA_TYPE.int32 : DATA_TYPE.float32,
    );
    const epilogue = ACTIVATION_FLAG[activation] | (bias ? EPILOGUE.bias : 0);
    const operationOf = (isTransposed: boolean) =>
      isTransposed ? OPERATION.transpose : OPERATION.none;
    this.#setInteger(operation, DESC.transposeA, operationOf(!problem.weightByColumns));
    this.#setInteger(operation, DESC.transposeB, operationOf(problem.xByColumns === true));
    this.#setInteger(operation, DESC.epilogue, epilogue || EPILOGUE.none);
    // Elsewhere it is the type of the results.
    if (bias && isCoded(problem)) {
      this.#setInteger(operation, DESC.biasType, DATA_TYPE.bfloat16);
    }
    // One number a matrix is the default, and all that older libraries know.
    if (scaling === "rows") {
      this.#setInteger(operation, DESC.scaleModeA, SCALE_MODE.outerVector);
      this.#setInteger(operation, DESC.scaleModeB, SCALE_MODE.outerVector);
    }
    return operation;
  }

  #makeLayout(
    type: number,
    sizes: readonly [rows: number, columns: number],
    leadingDimension: number,
    [batch, offset = 0]: readonly [MatmulBatch | undefined, offset?: number | undefined],
  ): number {
    const layout = this.#make(
      "cublasLtMatrixLayoutCreate",
      "cublasLtMatrixLayoutDestroy",
      type,
      ...sizes,
      leadingDimension,
    );
    if (batch) {
      this.#setLayout(layout, LAYOUT.batchCount, integers(batch.count));
      this.#setLayout(layout, LAYOUT.batchOffset, words(offset));
    }
    return layout;
  }

  #setLayout(layout: number, attribute: number, value: ArrayBufferView): void {
    const doing = "describe a batch of matrices";
    const { byteLength } = value;
    const place = addressOf(value);
    this.#calls.run(
      "cublasLtMatrixLayoutSetAttribute",
      doing,
      layout,
      attribute,
      place,
      byteLength,
    );
  }

  /** What a product may use; `free` gives it back too. */
  makePreference({ workspaceBytes, alignments, results }: MatmulProblem): number {
    const preference = this.#make(
      "cublasLtMatmulPreferenceCreate",
      "cublasLtMatmulPreferenceDestroy",
    );
    const set = (
      attribute: number,
      value: Uint32Array<ArrayBuffer> | BigUint64Array<ArrayBuffer>,
    ) =>
      this.#calls.run(
        "cublasLtMatmulPreferenceSetAttribute",
        "set what a product may use",
        preference,
        attribute,
        addressOf(value),
        value.byteLength,
      );
    set(PREFERENCE.workspaceBytes, words(workspaceBytes));
    // Parts of sums are joined as float32 too, not in results of 16 bits.
    if (results) set(PREFERENCE.reductionSchemes, integers(REDUCTION_SCHEME.computeType));
    set(PREFERENCE.alignmentA, integers(alignments.weight));
    set(PREFERENCE.alignmentB, integers(alignments.x));
    set(PREFERENCE.alignmentC, integers(alignments.added));
    set(PREFERENCE.alignmentD, integers(alignments.output));
    return preference;
  }

  #make(create: CublasLtFunction, destroy: CublasLtFunction, ...values: number[]): number {
    const handle = this.#calls.get(create, "describe a product", ...values);
    this.#made.push([destroy, handle]);
    return handle;
  }

  #setInteger(operation: number, attribute: number, value: number): void {
    this.#set(operation, attribute, integers(value));
  }

  #setWord(operation: number, attribute: number, value: number): void {
    this.#set(operation, attribute, words(value));
  }

  #set(operation: number, attribute: number, value: ArrayBufferView): void {
    this.#calls.run(
      "cublasLtMatmulDescSetAttribute",
      "describe a product",
      operation,
      attribute,
      addressOf(value),
      value.byteLength,
    );
  }
}

function computeType({ operands, tensorFloat32 }: MatmulProblem): number {
  if (operands === "int8") return COMPUTE_TYPE.int32;
  const isRounded = operands === "float32" && tensorFloat32;
  return isRounded ? COMPUTE_TYPE.fastTensorFloat32 : COMPUTE_TYPE.float32;
}

function fittingAlgorithms(
  results: Uint8Array<ArrayBuffer>,
  count: number,
  workspaceBytes: number,
): Algorithm[] {
  const view = new DataView(results.buffer);
  return Array.from({ length: count }, (_, i) => i * HEURISTIC.bytes).flatMap((at) => {
    const needed = Number(view.getBigUint64(at + HEURISTIC.workspace, true));
    const state = view.getInt32(at + HEURISTIC.state, true);
    if (state !== 0 || needed > workspaceBytes) return [];
    return [{
      bytes: results.slice(at, at + HEURISTIC.algorithmBytes),
      workspaceBytes: needed,
    }];
  });
}

function integers(value: number): Uint32Array<ArrayBuffer> {
  return new Uint32Array(new ArrayBuffer(4)).fill(value);
}

function words(value: number): BigUint64Array<ArrayBuffer> {
  return new BigUint64Array(new ArrayBuffer(8)).fill(BigInt(value));
}
