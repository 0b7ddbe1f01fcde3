import assert from "node:assert/strict";
import { test } from "node:test";
import {
  drawLatents,
  latentSizes,
  packLatents,
  unpackLatents,
  unscaleLatents,
} from "../../src/pipelines/latents.ts";
import { HostTensor } from "../../src/tensor/host_tensor.ts";
import { TorchGenerator } from "../../src/tensor/random.ts";
import { goldenNames, readGolden } from "./goldens.ts";

const SIZES = latentSizes({ width: 12, height: 8 }, 2, 8); // 2 x 3 tokens, 2 channels

test("a token's features are channel, row, column of its 2x2 latent pixels", () => {
  const planes = Float32Array.from({ length: 2 * 2 * 4 * 6 }, (_, i) => i);
  const packed = packLatents(planes, SIZES);
  const at = (picture: number, channel: number, y: number, x: number) =>
    ((picture * 2 + channel) * 4 + y) * 6 + x;
  for (const [picture, row, column] of [[0, 0, 0], [0, 1, 2], [1, 0, 1]]) {
    const start = ((picture * 2 + row) * 3 + column) * 8;
    const expected = [0, 1].flatMap((channel) =>
      [[0, 0], [0, 1], [1, 0], [1, 1]].map(([dy, dx]) =>
        at(picture, channel, 2 * row + dy, 2 * column + dx)
      )
    );
    assert.deepEqual([...packed.slice(start, start + 8)], expected);
  }
});

test("unpacking gives the latent picture with its channels last", () => {
  const planes = Float32Array.from({ length: 2 * 4 * 6 }, (_, i) => i);
  const picture = unpackLatents(packLatents(planes, SIZES), SIZES);
  assert.deepEqual(picture.shape, [4, 6, 2]);
  const values = picture.toFloat32();
  for (let i = 0; i < 24; i++) {
    assert.deepEqual([values[2 * i], values[2 * i + 1]], [planes[i], planes[24 + i]]);
  }
});

test("noise of one generator or of one per picture equals Diffusers' bit for bit", () => {
  let compared = 0;
  for (const name of goldenNames()) {
    const { options, tensors } = readGolden(name);
    if (options.latents) continue;
    const golden = tensors.get("initial_latents")!;
    const ids = tensors.get("image_ids")!.toFloat32();
    const [rows, columns] = [ids[ids.length - 2] + 1, ids[ids.length - 1] + 1];
    const sizes = { rows, columns, tokens: rows * columns, channels: golden.shape[2] / 4 };
    const seeds = [options.seed!].flat() as number[];
    const generators = seeds.map((seed) => new TorchGenerator(seed));
    const drawn = drawLatents(generators, golden.shape[0], sizes);
    assert.deepEqual(drawn, golden.toFloat32().slice(), name);
    compared++;
  }
  assert.ok(compared >= 15);
});

test("latents are divided by the scaling factor and shifted, in float32", () => {
  const latents = HostTensor.fromFloat32(Float32Array.of(1, -2), [1, 1, 2]);
  const found = unscaleLatents(latents, { scalingFactor: 0.3611, shiftFactor: 0.1159 });
  const scale = (z: number) =>
    Math.fround(Math.fround(z / Math.fround(0.3611)) + Math.fround(0.1159));
  assert.deepEqual([...found.toFloat32()], [scale(1), scale(-2)]);
});
