/** Weights whose elements or codes come piece by piece, against the same read as a whole. */

import assert from "node:assert/strict";
import { test } from "node:test";
import type { WeightRest } from "../../src/backends/backend.ts";
import { checkpointFromSources } from "../../src/io/checkpoint.ts";
import { serializeGguf } from "../../src/io/gguf_writer.ts";
import { serializeSafetensors } from "../../src/io/safetensors_writer.ts";
import type { PlanWeight } from "../../src/plan/plan.ts";
import { formatTable } from "../../src/quantization/format_table.ts";
import { quantizeFormats } from "../../src/quantization/formats.ts";
import { weightBytes } from "../../src/quantization/layout_bytes.ts";
import type { NamedTensor, Quantizer } from "../../src/quantization/quantizer.ts";
import {
  type ComponentWeights,
  openWeights,
  type OpenWeightsOptions,
} from "../../src/quantization/weights.ts";
import { memorySource } from "../../src/runtime/byte_source.ts";
import type { HostTensor } from "../../src/tensor/host_tensor.ts";
import { PIECE_BYTES } from "../../src/tensor/piece_memory.ts";
import { ScratchBytes } from "../../src/tensor/scratch_bytes.ts";
import { shapeInElements } from "../../src/io/checkpoint.ts";
import { quantizerOf } from "./method_support.ts";
import { assertFails, noPause, randomValues, tensorOf } from "./support.ts";

const NAME = "blocks.0.ff.weight";

/** Formats whose codes lie in another order or width, or whose weights are no codes to their method. */
const WHOLE = /^torchao:(int4|uint)|^quanto:int[24]$|^layerwise:/;

/** The weights of a checkpoint in a file. */
async function openFile(
  tensors: readonly NamedTensor[],
  options: Partial<OpenWeightsOptions> = {},
  metadata: Readonly<Record<string, string>> = {},
): Promise<ComponentWeights> {
  const isGguf = tensors.some(({ ggufType }) => ggufType !== undefined);
  const bytes = isGguf
    ? ggufFile(tensors)
    : serializeSafetensors(new Map(tensors.map(({ name, tensor }) => [name, tensor])), {
      ...metadata,
    });
  const checkpoint = await checkpointFromSources("x", [memorySource(bytes, "x")]);
  return await openWeights(checkpoint, {
    config: { _class_name: "FluxTransformer2DModel" },
    linearNames: (name) => name === NAME,
    ...options,
  });
}

function ggufFile(tensors: readonly NamedTensor[]): Uint8Array {
  const descriptions = tensors.map(({ name, tensor: { shape, bytes }, ggufType }) => ({
    name,
    type: ggufType!,
    shape: shapeInElements({ ggufType, shape }),
    data: bytes,
  }));
  return serializeGguf(descriptions, [["general.architecture", { type: "string", value: "flux" }]]);
}

function planned(weights: ComponentWeights, change: Partial<PlanWeight> = {}): PlanWeight {
  const { shape, format } = weights.catalog.lookup(NAME)!;
  const bytes = weightBytes(shape, format);
  return { name: NAME, shape, format, arrangement: "rows", bytes, ...change };
}

/** What comes piece by piece, and what follows; null where nothing does. */
async function streamed(weights: ComponentWeights, plan = planned(weights)) {
  const bytes = new Uint8Array(plan.bytes);
  let end = 0, pieces = 0;
  const rest = await weights.source.stream!(plan, (piece, start) => {
    assert.equal(start, end);
    bytes.set(piece, start);
    end += piece.length;
    pieces++;
  }, new ScratchBytes());
  if (rest === null) assert.equal(pieces, 0);
  return rest && { rest, bytes: bytes.slice(0, end), pieces };
}

/** Whether a weight comes piece by piece; then it is the same as one read as a whole. */
async function assertSameStream(weights: ComponentWeights): Promise<boolean> {
  const found = await streamed(weights);
  if (!found) return false;
  const whole = await weights.source.read(planned(weights));
  if (whole.kind === "dense") {
    assert.deepEqual(found.rest, { kind: "dense" } satisfies WeightRest);
    assert.deepEqual(found.bytes, whole.tensor.bytes);
  } else {
    const { codes, ...tensor } = whole.tensor;
    assert.deepEqual(found.rest, { kind: "quantized", tensor });
    assert.deepEqual(found.bytes, codes);
  }
  return true;
}

async function writtenBy(quantizer: Quantizer, dense: HostTensor) {
  const tensors = quantizer.write(NAME, await quantizer.quantize(NAME, dense, noPause));
  const { dtype, shape } = dense;
  return {
    tensors,
    metadata: quantizer.fileMetadata?.([{ name: NAME, dtype, shape, quantized: true }]),
  };
}

for (const row of formatTable().filter(({ load, save }) => load && save)) {
  test(`${row.name}: a stored weight is the same piece by piece`, async () => {
    const format = quantizeFormats().find(({ fullName }) => fullName === row.name)!;
    const config = format.config();
    const dense = tensorOf(randomValues(96 * 256, 1), [96, 256], "bfloat16");
    const { tensors, metadata } = await writtenBy(quantizerOf(config), dense);
    const plain = { _class_name: "FluxTransformer2DModel" };
    const weights = await openFile(tensors, {
      config: row.method === "gguf" ? plain : {
        ...plain,
        quantization_config: JSON.parse(JSON.stringify(config)),
      },
    }, metadata);
    assert.equal(weights.preQuantized, true);
    assert.equal(await assertSameStream(weights), !WHOLE.test(row.name));
  });
}

for (const name of ["bitsandbytes:nf4", "bitsandbytes:int8", "gguf:Q8_0"]) {
  test(`${name}: a weight of several pieces is the same, and so is one that is made dense`, async () => {
    const format = quantizeFormats().find(({ fullName }) => fullName === name)!;
    const rows = Math.ceil(2 * PIECE_BYTES / 1024) + 3;
    const dense = tensorOf(randomValues(rows * 1024, 2), [rows, 1024], "bfloat16");
    const { tensors } = await writtenBy(quantizerOf(format.config()), dense);
    assert.ok(await assertSameStream(await openFile(tensors)));
    assert.ok((await streamed(await openFile(tensors)))!.pieces > 1);
    assert.equal(await streamed(await openFile(tensors, { dequantizeTo: "bfloat16" })), null);
  });
}

test("bitsandbytes' padding of an odd number of codes is cleared", async () => {
  const quantizer = quantizerOf(quantizeFormats()[0].config());
  const { tensors } = await writtenBy(quantizer, tensorOf(randomValues(15, 3), [3, 5]));
  assert.ok(tensors[0].tensor.bytes[7] % 16 > 0, "the library's padding is a code");
  const weights = await openFile(tensors);
  assert.ok(await assertSameStream(weights));
  assert.equal((await streamed(weights))!.bytes[7] >> 4, 0);
});

test("a dense weight comes as it is stored, or as a whole when its type or order changes", async () => {
  const dense = (dtype: "float32" | "bfloat16" | "float64" | "float8_e4m3fn") => [
    { name: NAME, tensor: tensorOf(randomValues(60, 4), [4, 15], dtype) },
  ];
  for (const dtype of ["float32", "bfloat16"] as const) {
    const weights = await openFile(dense(dtype));
    assert.ok(await assertSameStream(weights));
    assert.equal(await streamed(weights, planned(weights, { arrangement: "convolution" })), null);
    const other = { kind: "dense", dtype: "float16" } as const;
    assert.equal(await streamed(weights, planned(weights, { format: other })), null);
    assert.equal(await streamed(weights, planned(weights, { shape: [4, 14] })), null);
    assert.equal(await streamed(weights, planned(weights, { name: "absent" })), null);
  }
  for (const dtype of ["float64", "float8_e4m3fn"] as const) {
    assert.equal(await streamed(await openFile(dense(dtype))), null, dtype);
  }
  assert.equal(await streamed(await openFile(dense("float32"), { dtype: "bfloat16" })), null);
});

test("what is quantized while it loads is read as a whole", async () => {
  const tensors = [{ name: NAME, tensor: tensorOf(randomValues(96 * 256, 5), [96, 256]) }];
  const quantizationConfig = quantizeFormats()[0].config();
  assert.equal(await streamed(await openFile(tensors, { quantizationConfig })), null);
});

test("a damaged weight is refused as by a whole read", async () => {
  const bad = tensorOf(randomValues(60, 6).fill(NaN, 59), [4, 15]);
  const weights = await openFile([{ name: NAME, tensor: bad }]);
  for (const action of [() => streamed(weights), () => weights.source.read(planned(weights))]) {
    await assertFails(action, "non_finite_weight", /flat index 59/);
  }
});

test("a damaged weight that is quantized while it loads is refused by its file and index", async () => {
  const bad = tensorOf(randomValues(96 * 256, 7).fill(Infinity, 300, 301), [96, 256]);
  for (const { config } of quantizeFormats().filter((_, index) => index % 7 === 0)) {
    const weights = await openFile([{ name: NAME, tensor: bad }], { quantizationConfig: config() });
    const read = () => weights.source.read(planned(weights));
    await assertFails(read, "non_finite_weight", /file "x"[^]*Infinity at flat index 300/);
  }
});
