/** What an encoder of one op sees on CUDA, and the launches that it writes. */

import type { QuantizedActivations } from "../../ops/activation_mode.ts";
import type { Plan, PlanWeight } from "../../plan/plan.ts";
import type { QuantizedLayout } from "../../quantization/quantized_tensor.ts";
import { tableValues } from "../integer_table.ts";
import { invalid } from "../operand_view.ts";
import { StepOperands, type UnitPlaces, weightMatrix } from "../step_operands.ts";
import { keptDtype, unitLayout } from "../weight_unit.ts";
import { signsCodes } from "./coded_weight.ts";
import type { RoundedRegion } from "./rounded_region.ts";
import type { ConstantPool } from "./constant_pool.ts";
import type { DnnAddresses, DnnLibrary, PreparedDnn } from "./dnn_problem.ts";
import type { KernelName } from "./kernel_names.ts";
import type { NarrowType } from "./plain_rows.ts";
import { packParameters, type Parameter, rows } from "./parameters.ts";
import type { MatmulPrecision, OperandType } from "./matmul_precision.ts";
import type {
  MatmulAddresses,
  MatmulLibrary,
  MatmulProblem,
  PreparedMatmul,
} from "./matmul_problem.ts";
import { describeMatrix, describeWeight } from "./weight_descriptor.ts";

/** Blocks of a grid along each axis. */
export type Grid = readonly [x: number, y: number, z: number];

/** One launch of a kernel of our own. */
export interface KernelLaunch {
  readonly kind: "kernel";
  readonly kernel: KernelName;
  readonly grid: Grid;
  readonly parameters: Uint8Array<ArrayBuffer>;
}

/** One product by the library. */
export interface MatmulLaunch {
  readonly kind: "matmul";
  readonly prepared: PreparedMatmul;
  readonly addresses: MatmulAddresses;
}

/** One attention or convolution by the library. */
export interface DnnLaunch {
  readonly kind: "dnn";
  readonly prepared: PreparedDnn;
  readonly addresses: DnnAddresses;
}

/** What a step puts into the stream. */
export type Launch = KernelLaunch | MatmulLaunch | DnnLaunch;

/** How products, attention and convolutions are computed. */
export interface Products {
  readonly precision: MatmulPrecision;
  /** Null where there is none. */
  readonly library: MatmulLibrary | null;
  /** The same for attention and convolutions. */
  readonly dnn: DnnLibrary | null;
}

/** Addresses that steps are encoded for. */
export interface Placement {
  readonly arena: number;
  /** Scratch that steps share, one after another. */
  readonly stepScratch: number;
  /** Four words in which a kernel tells of a fault. */
  readonly fault: number;
  readonly weights: UnitPlaces;
  /** Whether a vector among the weights is all of a type of 16 bits. */
  readonly isExactIn: (weight: number, type: NarrowType) => boolean;
  readonly constants: ConstantPool;
  readonly products: Products;
  readonly rounded: RoundedRegion;
  /** Whether weights lie as `signsCodes` says. */
  readonly hasSignedCodes: boolean;
}

/** A weight operand: its matrix, its description, and whether products can read it as it lies. */
export interface EncodedWeight {
  readonly rows: number;
  readonly columns: number;
  readonly descriptor: readonly Parameter[];
  /** Where its codes and scales lie and what they mean; null where it has none. */
  readonly coded: {
    readonly codes: number;
    readonly scales: number;
    readonly layout: QuantizedLayout;
    /** Whether the codes are signed numbers as they lie. */
    readonly isSigned: boolean;
  } | null;
  /** Where its rows lie and as what, or null when they must be dequantized. */
  readonly plain: {
    readonly address: number;
    readonly stride: number;
    readonly type: OperandType;
  } | null;
}

const LARGEST_GRID: Grid = [2 ** 31 - 1, 65535, 65535];
/** Elements that a 32-bit index reaches. */
const LARGEST_COUNT = 2 ** 32 - 1;

/** The operands of one step and the launches made of it. */
export class CudaStep extends StepOperands {
  readonly launches: Launch[] = [];
  readonly fault: number;
  readonly products: Products;
  /** What steps round for each other. */
  readonly rounded: RoundedRegion;
  readonly #constants: ConstantPool;
  readonly #hasSignedCodes: boolean;
  readonly #isExactIn: Placement["isExactIn"];

  constructor(plan: Plan, index: number, placement: Placement) {
    const { arena, stepScratch, fault, weights, constants, products } = placement;
    super(plan, index, arena, stepScratch, weights);
    this.fault = fault;
    this.products = products;
    this.rounded = placement.rounded;
    this.#constants = constants;
    this.#hasSignedCodes = placement.hasSignedCodes;
    this.#isExactIn = placement.isExactIn;
  }

  /** Whether an operand is a vector of weights that are all of a type of 16 bits. */
  isExactIn(operand: number, type: NarrowType): boolean {
    const input = this.step.inputs[operand];
    return input?.kind === "weight" && this.#isExactIn(input.weight, type);
  }

  /** Adds a launch. */
  launch(kernel: KernelName, grid: Grid, parameters: readonly Parameter[]): void {
    if (grid.some((blocks, axis) => blocks > LARGEST_GRID[axis]!)) {
      throw invalid("too many blocks", { op: this.step.op, grid });
    }
    this.launches.push({ kind: "kernel", kernel, grid, parameters: packParameters(parameters) });
  }

  /** Adds a product by the library, after what `before` adds; false where there is none or it cannot do this one. */
  launchMatmul(problem: MatmulProblem, addresses: MatmulAddresses, before?: () => void): boolean {
    const prepared = this.products.library?.prepare(problem, addresses);
    if (!prepared) return false;
    before?.();
    this.launches.push({ kind: "matmul", prepared, addresses });
    return true;
  }

  /** Adds an attention or a convolution that the library made ready. */
  launchDnn(prepared: PreparedDnn, addresses: DnnAddresses): void {
    this.launches.push({ kind: "dnn", prepared, addresses });
  }

  /** Adds a launch of one thread an element. */
  launchElements(kernel: KernelName, count: number, parameters: readonly Parameter[]): void {
    if (count > LARGEST_COUNT) throw invalid("too many elements", { op: this.step.op, count });
    this.launch(kernel, [Math.ceil(count / 256), 1, 1], parameters);
  }

  /** The struct `Rows` of an operand [1 | rows, columns]; null where it is absent. */
  rowOperand(operand: number, count: number, columns: number): Parameter[] {
    return rows(this.rows(operand, count, columns));
  }

  /** An operand that serves as a weight [rows, columns]; `mode` may change what its table holds. */
  weight(operand: number, mode?: QuantizedActivations): EncodedWeight {
    const input = this.operand(operand);
    if (input.kind === "activation") {
      const matrix = this.matrix(operand);
      const descriptor = describeMatrix(matrix);
      const { address, stride } = matrix;
      const plain = { address, stride, type: "float32" } as const;
      return { ...matrix, descriptor, coded: null, plain };
    }
    const weight = this.plan.weights[input.weight]!;
    const unit = this.unit(input.weight);
    const matrix = weightMatrix(weight);
    const type = plainType(weight);
    const isSigned = this.#hasSignedCodes && signsCodes(weight);
    const table = mode && this.#tableUnder(weight, mode);
    const descriptor = describeWeight(weight, unit, { table, isSigned });
    const plain = type && { address: unit, stride: matrix.columns, type };
    return { ...matrix, descriptor, coded: codedParts(weight, unit, isSigned), plain };
  }

  /** Where a table that the mode rounds lies; undefined where the weight's own is used. */
  #tableUnder({ format }: PlanWeight, mode: QuantizedActivations): number | undefined {
    if (!mode.int16Tables || format.kind === "dense") return undefined;
    const { value } = format.layout;
    return value.kind === "table"
      ? this.#constants.place(tableValues(value.table, mode))
      : undefined;
  }
}

function codedParts(weight: PlanWeight, unit: number, isSigned: boolean): EncodedWeight["coded"] {
  if (weight.format.kind === "dense") return null;
  const { data, scale } = unitLayout(weight);
  const { layout } = weight.format;
  return { codes: unit + data, scales: unit + scale.data, layout, isSigned };
}

/** The type of a weight's elements where products can read them as they lie. */
function plainType(weight: PlanWeight): OperandType | null {
  if (weight.format.kind !== "dense") return null;
  const dtype = keptDtype(weight);
  return dtype === "float32" || dtype === "float16" || dtype === "bfloat16" ? dtype : null;
}
