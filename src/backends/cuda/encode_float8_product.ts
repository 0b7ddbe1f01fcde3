/**
 * Products of float8 codes (e4m3) on units that take them: the weight is read where it lies. The library applies both
 * sides' scales where nothing follows but a bias of bfloat16; else a kernel of our own does, with the layer's end.
 */

import type { QuantizedActivations } from "../../ops/activation_mode.ts";
import type { MatrixView } from "../operand_view.ts";
import { type CodedWeight, scalesOf } from "./coded_weight.ts";
import type { CudaStep } from "./cuda_step.ts";
import type { CodeRows } from "./code_places.ts";
import { roundedCodes, writtenCodes } from "./encode_rounding.ts";
import {
  holdsSums,
  launchLibraryProduct,
  type LibraryProduct,
  libraryWorkspace,
  sumsInOutput,
} from "./library_product.ts";
import type { ProductScaling } from "./matmul_problem.ts";
import { address, integers, type Parameter, rows } from "./parameters.ts";
import { launchNarrowBias, withNarrowBias } from "./encode_plain_product.ts";
import { floatRows, type PlainRows } from "./plain_rows.ts";
import { endParameters, plainEnd, type ProductEnd } from "./product_end.ts";
import { tiles } from "./tiles.ts";

const TYPE = "float8_e4m3fn";

type Product = Omit<LibraryProduct, "output">;

/** A layer over float8 activations: x [m, k] rounded as `mode` says, times a float8 weight [n, k]. */
export function launchFloat8Layer(
  step: CudaStep,
  x: MatrixView,
  weight: CodedWeight,
  end: ProductEnd,
  mode: QuantizedActivations,
): void {
  const codes = roundedCodes(step, x, mode);
  const { output } = end;
  const sumBytes = 4 * output.rows * output.columns;
  const product: Product = {
    x: { ...codes, columns: x.columns, type: TYPE },
    weight: { ...weight, address: weight.coded.codes, stride: weight.columns, type: TYPE },
    workspace: libraryWorkspace(step, sumBytes),
  };
  const layer = { codes, weight, end };
  const written = sumsInOutput(end) ? writtenCodes(step, output) : null;
  if (written) {
    launchSums(step, { ...product, output: end.sums });
    const sums = endedSums(end.sums, layer, written.keepsFloats);
    return step.launch("end_float8_codes", [output.rows, 1, 1], [...sums, ...written.parameters]);
  }
  const sums = sumsInOutput(end)
    ? end.sums
    : { ...end.sums, address: step.scratch(sumBytes), stride: output.columns };
  if (launchWithScales(step, product, { ...layer, scaling: scalingOf(weight, mode) })) return;
  launchSums(step, { ...product, output: sums });
  step.launchElements("end_float8", output.rows * output.columns, endedSums(sums, layer));
}

/** How the library may scale: one number for each row of both, or one for all of both. */
function scalingOf(weight: CodedWeight, mode: QuantizedActivations): ProductScaling {
  const scales = scalesOf(weight);
  const isShared = mode.granularity === "tensor" || mode.scale.kind === "static";
  // A scale that all rows of x share lies there once for each of them.
  return scales === "tensor" && !isShared ? "none" : scales;
}

interface Layer {
  readonly codes: CodeRows;
  readonly weight: CodedWeight;
  readonly end: ProductEnd;
}

/** The whole layer by the library; false where something follows the scales, or it cannot. */
function launchWithScales(
  step: CudaStep,
  product: Product,
  { codes, weight, end, scaling }: Layer & { readonly scaling: ProductScaling },
): boolean {
  const { residual, gate, activation } = end;
  if (scaling === "none" || gate[0] !== 0 || activation !== "identity") return false;
  const narrow = withNarrowBias(step, end, "bfloat16");
  const { output, bias, narrowBias } = narrow;
  const isExact = bias === 0 || narrowBias !== 0;
  if (!isExact || !holdsResults(output) || !canAdd(residual, output)) return false;
  return launchLibraryProduct(step, {
    ...product,
    output,
    scales: { scaling, x: codes.scales, weight: weight.coded.scales },
    end: { bias: narrowBias, activation, added: residual },
    before: () => launchNarrowBias(step, narrow, "bfloat16"),
  });
}

/** Whether results of float8 can go to a place: as sums, or as bfloat16. */
function holdsResults(output: PlainRows): boolean {
  return holdsSums(output) && (output.type === "float32" || isNarrowPlace(output));
}

/** Rows of bfloat16 begin on 16 bytes too. */
function isNarrowPlace({ type, stride }: PlainRows): boolean {
  return type === "bfloat16" && stride % 8 === 0;
}

/** Whether the library adds the residual: as wide as the output, and of its type. */
function canAdd([place, stride]: ProductEnd["residual"], { columns, type }: PlainRows): boolean {
  return place === 0 || stride >= columns && type === "float32";
}

/** Sums of codes as they are. */
function launchSums(step: CudaStep, product: LibraryProduct): void {
  if (launchLibraryProduct(step, product)) return;
  const { x, weight, output } = product;
  step.launch(`linear_${TYPE}`, tiles(x.rows, weight.rows), [
    ...rows([x.address, x.stride]),
    ...rows([weight.address, weight.stride]),
    ...endParameters(plainEnd(floatRows(output))),
    ...integers(x.rows, weight.rows, x.columns, 0),
  ]);
}

/** The struct `EndCodesParameters`. */
function endedSums(
  sums: MatrixView,
  { codes, weight, end }: Layer,
  keepsFloats = true,
): Parameter[] {
  const { rows: count, columns } = end.output;
  return [
    ...[sums.address, codes.scales, 0, 0].map(address),
    ...endParameters(end, keepsFloats),
    ...weight.descriptor,
    ...integers((count * columns) | 0, columns, sums.stride, 0),
  ];
}
