/** The int4 packings of torchao that it makes on GPUs; make_torchao_goldens.py int4 made the hashes. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { TorchAoConfig } from "../../src/quantization/torchao_config.ts";
import { packTiles, tileShape, unpackTiles } from "../../src/quantization/torchao_int4.ts";
import { Int4WeightOnlyConfig } from "../../src/quantization/torchao_types.ts";
import { powFloat32 } from "../../src/tensor/float32_pow.ts";
import { HostTensor } from "../../src/tensor/host_tensor.ts";
import {
  assertRoundTrip,
  dequantized,
  type MethodCase,
  quantizerInputs,
  quantizerOf,
  readerOf,
  shortHash,
} from "./method_support.ts";
import { assertFails, noPause, randomValues, readGolden, tensorOf } from "./support.ts";

interface Goldens {
  readonly cases: MethodCase[];
  readonly configs: Record<string, Record<string, unknown>>;
  readonly headers: Record<string, string>;
  readonly powers: string;
}

const goldens = await readGolden<Goldens>("torchao_int4.json");
const inputs = await quantizerInputs();

function configOf(scheme: string): TorchAoConfig {
  return TorchAoConfig.fromDict({ quant_type: { default: goldens.configs[scheme] } });
}

/** [scheme, golden configs and cases] of one packing or algorithm. */
async function assertEqualsTorchao(prefix: string): Promise<number> {
  let equal = 0;
  for (const { input, scheme, sha256 } of goldens.cases) {
    if (!scheme.startsWith(prefix)) continue;
    const dense = inputs.get(input)!;
    const quantizer = quantizerOf(configOf(scheme));
    const weight = await quantizer.quantize("m.weight", dense, noPause);
    const parts = new Map(
      quantizer.write("m.weight", weight).map((t) => [t.name.replace("m._weight_", ""), t.tensor]),
    );
    assert.deepEqual([...parts.keys()].sort(), Object.keys(sha256).sort());
    for (const [part, hash] of Object.entries(sha256)) {
      assert.equal(shortHash(parts.get(part)!.bytes), hash, `${input} ${scheme}: ${part}`);
      equal++;
    }
    await assertRoundTrip(quantizer, "m.weight", dense, weight);
  }
  return equal;
}

test("tinygemm's tiles equal torchao's with the layout of PyTorch's CUDA kernel", async () => {
  assert.equal(await assertEqualsTorchao("tile_packed"), 38);
});

test("the words of XPU's int4 equal torchao's", async () => {
  assert.equal(await assertEqualsTorchao("plain_int32"), 114);
});

test("powers of floats equal PyTorch's to the last bit", () => {
  const bases = Float32Array.from(
    { length: 4096 },
    (_, index) => (index * 7919 % 20011 + 1) / 4096 * 2 ** -(index % 40),
  );
  const powers = bases.map((base) => powFloat32(base, 0.7 - 1));
  assert.equal(shortHash(new Uint8Array(powers.buffer)), goldens.powers);
  assert.deepEqual([0, 1, Infinity].map((base) => powFloat32(base, -0.5)), [Infinity, 1, 0]);
});

test("zeros searched for by HQQ equal torchao's on a CPU", async () => {
  assert.equal(await assertEqualsTorchao("hqq"), 38);
});

test("headers and configs are spelled as torchao spells them", () => {
  const { shape, dtype } = inputs.get("normal.bfloat16")!;
  for (const [scheme, header] of Object.entries(goldens.headers)) {
    const config = configOf(scheme);
    const [metadata] = [quantizerOf(config).fileMetadata!([
      { name: "0.weight", shape, dtype, quantized: true },
    ])];
    assert.equal(metadata["0.weight"], header);
    const { quant_type } = JSON.parse(JSON.stringify(config.toJSON()));
    assert.deepEqual(quant_type.default, goldens.configs[scheme]);
  }
});

test("tiles hold every code once, whatever the shape", () => {
  for (const shape of [[1, 32], [8, 1024], [9, 1056], [17, 2048]] as const) {
    const codes = Uint8Array.from(
      { length: shape[0] * shape[1] / 2 },
      (_, index) => (index * 131 + (index >> 7)) & 255,
    );
    const tiles = packTiles(codes, shape);
    assert.deepEqual([...tiles.shape], [...tileShape(shape)]);
    assert.deepEqual(unpackTiles(tiles.bytes, shape), codes);
  }
});

test("what lies in the padding of foreign tiles is kept", async () => {
  const dense = tensorOf(randomValues(4 * 64, 3), [4, 64], "bfloat16");
  const quantType = new Int4WeightOnlyConfig({
    groupSize: 32,
    int4PackingFormat: "TILE_PACKED_TO_4D",
  });
  const quantizer = quantizerOf(new TorchAoConfig({ quantType }));
  const weight = await quantizer.quantize("m.weight", dense, noPause);
  const written = quantizer.write("m.weight", weight);
  for (const { tensor } of written) tensor.bytes[tensor.bytes.length - 4] = 7;
  const reader = readerOf(quantizer, "m.weight", dense, written);
  const again = await quantizer.read("m.weight", reader);
  assert.deepEqual(again.tensor, weight.tensor);
  assert.deepEqual(quantizer.write("m.weight", again), written);
});

test("weights of other types are rounded first, as the kernels take no others", async () => {
  const dense = tensorOf(randomValues(8 * 128, 9), [8, 128]);
  for (const int4PackingFormat of ["TILE_PACKED_TO_4D", "PLAIN_INT32"] as const) {
    const quantType = new Int4WeightOnlyConfig({ int4PackingFormat });
    const quantizer = quantizerOf(new TorchAoConfig({ quantType }));
    const [wide, rounded] = [
      await quantizer.quantize("m.weight", dense, noPause),
      await quantizer.quantize("m.weight", dense.cast("bfloat16"), noPause),
    ];
    assert.deepEqual(wide, rounded);
    assert.equal(dequantized(quantizer, wide).dtype, "bfloat16");
    const info = quantizer.describe(dense.shape, "float32");
    assert.deepEqual(info?.format.kind === "quantized" && info.format.layout, wide.tensor.layout);
  }
});

test("packings and factors that cannot be run are refused", async () => {
  const config = (data: Record<string, unknown>) => () =>
    TorchAoConfig.fromDict({ quant_type: { _type: "Int4WeightOnlyConfig", _data: data } });
  const packing = { _type: "Int4PackingFormat", _data: "PRESHUFFLED" };
  await assertFails(config({ int4_packing_format: packing }), "unsupported", /PRESHUFFLED/);
  await assertFails(config({ int4_tile_packed_ntile: 16 }), "unsupported", /ntile/);

  const dense = tensorOf(randomValues(8 * 128, 4), [8, 128], "bfloat16");
  const quantizer = quantizerOf(configOf("plain_int32_128"));
  const weight = await quantizer.quantize("m.weight", dense, noPause);
  const read = async (name: string, tensor: HostTensor) => {
    const written = quantizer.write("m.weight", weight).filter((t) => t.name !== name);
    const reader = readerOf(quantizer, "m.weight", dense, [...written, { name, tensor }]);
    return await quantizer.read("m.weight", reader);
  };
  const factors = HostTensor.zeros("bfloat16", [128]);
  await assertFails(() => read("m._weight_act_pre_scale", factors), "unsupported", /scales/);
  const floats = HostTensor.zeros("bfloat16", [1, 8]);
  await assertFails(
    () => read("m._weight_zero_point", floats),
    "tensor_shape_mismatch",
    /int8/,
  );
});
