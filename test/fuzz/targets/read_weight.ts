/** Reads a weight and checks what a backend trusts. */

import type { StoredWeight } from "../../../src/backends/backend.ts";
import { HalftoneError } from "../../../src/errors.ts";
import type { PlanWeight } from "../../../src/plan/plan.ts";
import { packedBytes } from "../../../src/quantization/codes.ts";
import { dequantizeRows } from "../../../src/quantization/dequantize.ts";
import { groupCount, weightBytes } from "../../../src/quantization/layout_bytes.ts";
import type {
  QuantizedTensor,
  ScaleData,
  ScaleLayout,
} from "../../../src/quantization/quantized_tensor.ts";
import type { ComponentWeights } from "../../../src/quantization/weights.ts";
import { firstNonFinite } from "../../../src/tensor/finite.ts";
import { HostTensor } from "../../../src/tensor/host_tensor.ts";
import { elementCount } from "../../../src/tensor/shape.ts";

/** Reads a weight, if the component has it. */
export async function readWeight(name: string, weights: ComponentWeights): Promise<void> {
  const info = weights.catalog.lookup(name);
  if (!info) return;
  const { shape, format } = info;
  const bytes = weightBytes(shape, format);
  const plan: PlanWeight = { name, shape, format, arrangement: "rows", bytes };
  const whole = await outcomeOf(() => weights.source.read(plan));
  const streamed = await outcomeOf(() => streamedWeight(plan, weights));
  if (streamed.value !== null) compareOutcomes(whole, streamed);
  if (whole.error) throw whole.error;
  if (whole.value?.kind === "quantized") checkTensor(whole.value.tensor);
}

/** What came of reading: a weight, or the code of a refusal. */
interface Outcome<Value> {
  readonly value?: Value;
  readonly error?: HalftoneError;
}

async function outcomeOf<Value>(action: () => Promise<Value>): Promise<Outcome<Value>> {
  try {
    return { value: await action() };
  } catch (error) {
    if (error instanceof HalftoneError) return { error };
    throw error;
  }
}

/** A weight put together from its pieces; null where it is read as a whole. */
async function streamedWeight(
  plan: PlanWeight,
  { source }: ComponentWeights,
): Promise<StoredWeight | null> {
  const bytes = new Uint8Array(plan.bytes);
  let end = 0;
  const rest = await source.stream!(plan, (piece, start) => {
    assertEqual("start of a piece", start, end);
    bytes.set(piece, start);
    end += piece.length;
  });
  if (rest === null) return null;
  const codes = bytes.subarray(0, end);
  if (rest.kind === "quantized") return { ...rest, tensor: { ...rest.tensor, codes } };
  const dtype = plan.format.kind === "dense" ? plan.format.dtype : "uint8";
  return { kind: "dense", tensor: new HostTensor(dtype, plan.shape, codes) };
}

/** Both ways must give or refuse the same. */
function compareOutcomes(
  whole: Outcome<StoredWeight>,
  streamed: Outcome<StoredWeight | null>,
): void {
  assertEqual("refusal piece by piece", streamed.error?.code, whole.error?.code);
  const [a, b] = [whole.value, streamed.value].map((weight) =>
    weight?.kind === "quantized" ? weight.tensor.codes : weight?.tensor.bytes
  );
  assertEqual("bytes piece by piece", b?.length, a?.length);
  assertEqual("first byte that differs", a?.findIndex((byte, i) => byte !== b![i]) ?? -1, -1);
}

/** A backend trusts these sizes. */
function checkTensor({ shape, layout, codes, scale, offset }: QuantizedTensor): void {
  const count = elementCount(shape);
  const groups = groupCount(shape, layout);
  assertEqual("codes", codes.length, packedBytes(count, layout.bits));
  if (layout.value.kind === "table") {
    assertEqual("table", layout.value.table.length, 2 ** layout.bits);
  }
  checkScale("scale", groups, layout.scale, scale);
  assertEqual("offset", offset === null, layout.offset === null);
  if (layout.offset && offset) checkScale("offset", groups, layout.offset, offset);
  if (count > 0) dequantizeRows({ shape, layout, codes, scale, offset }, 0, 1);
}

function checkScale(what: string, groups: number, layout: ScaleLayout, data: ScaleData): void {
  assertEqual(`${what} kind`, data.kind, layout.kind);
  if (layout.kind === "float" && data.kind === "float") {
    assertEqual(`${what} type`, data.values.dtype, layout.dtype);
    assertFinite(what, data.values);
    return assertEqual(what, data.values.size, groups);
  }
  if (layout.kind === "float" || data.kind === "float") return;
  const supers = Math.ceil(groups / layout.superGroupSize);
  assertEqual(`${what} codes`, data.codes.length, packedBytes(groups, layout.bits));
  assertEqual(`${what} super-scales`, data.supers.size, supers);
  assertEqual(`${what} super-scale type`, data.supers.dtype, layout.superDtype);
  assertFinite(what, data.supers);
}

/** One scale that is no number makes every picture black. */
function assertFinite(what: string, values: HostTensor): void {
  assertEqual(`${what} that is not finite, at`, firstNonFinite(values), -1);
}

function assertEqual(what: string, found: unknown, expected: unknown): void {
  if (found !== expected) throw new Error(`${what}: ${found} where ${expected} belongs`);
}
