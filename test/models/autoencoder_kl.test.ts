import assert from "node:assert/strict";
import { test } from "node:test";
import { AutoencoderKL } from "../../src/models/autoencoder_kl.ts";
import { HostTensor } from "../../src/tensor/host_tensor.ts";
import { TorchGenerator } from "../../src/tensor/random.ts";
import { GOLDENS, loadJson, loadTensors, relativeError, runModel } from "./run_model.ts";
import { defaultVaeWeights } from "./torch_initialization.ts";

/** One picture of a batch, [channels, height, width] -> [height, width, channels]. */
function picture(batch: HostTensor, index = 0): HostTensor {
  const [, channels, height, width] = batch.shape;
  const values = batch.toFloat32().subarray(index * channels * height * width);
  const to = new Float32Array(channels * height * width);
  for (let pixel = 0; pixel < height * width; pixel++) {
    for (let c = 0; c < channels; c++) {
      to[pixel * channels + c] = values[c * height * width + pixel];
    }
  }
  return HostTensor.fromFloat32(to, [height, width, channels]);
}

function sizesOf(tensor: HostTensor): { height: number; width: number } {
  return { height: tensor.shape[0], width: tensor.shape[1] };
}

for (const name of ["schnell", "flux_vae", "no_vae_attention", "tiny_random_style"]) {
  const golden = loadTensors(`${GOLDENS}components/vae.safetensors`);
  const expected = (part: string, batch: number): HostTensor =>
    picture(golden.get(`${name}.${part}`)!, batch);
  const folder = `${GOLDENS}pipelines/${name}/vae`;
  const weights = loadTensors(`${folder}/diffusion_pytorch_model.safetensors`);
  const vae = new AutoencoderKL(loadJson(`${folder}/config.json`));
  const batches = golden.get(`${name}.image`)!.shape[0];

  test(`the autoencoder of "${name}" decodes as Diffusers does`, async () => {
    for (let batch = 0; batch < batches; batch++) {
      const latents = expected("latents", batch);
      const { image } = await runModel(
        weights,
        (graph) => vae.captureDecode(graph, sizesOf(latents)),
        { latents },
      );
      const wanted = expected("decoded", batch);
      assert.deepEqual(image.shape, wanted.shape);
      assert.ok(relativeError(image.toFloat32(), wanted.toFloat32()) < 1e-5);
    }
  });

  test(`the autoencoder of "${name}" encodes as Diffusers does`, async () => {
    for (let batch = 0; batch < batches; batch++) {
      const image = expected("image", batch);
      const found = await runModel(
        weights,
        (graph) => vae.captureEncode(graph, sizesOf(image)),
        { image },
      );
      for (const part of ["mean", "logvar"]) {
        const wanted = expected(part, batch);
        assert.deepEqual(found[part].shape, wanted.shape);
        assert.ok(relativeError(found[part].toFloat32(), wanted.toFloat32()) < 1e-5, part);
      }
    }
  });
}

const DUMMY_CONFIG = {
  in_channels: 3,
  out_channels: 3,
  block_out_channels: [4],
  layers_per_block: 1,
  latent_channels: 1,
  norm_num_groups: 1,
  use_quant_conv: false,
  use_post_quant_conv: false,
  shift_factor: 0.0609,
  scaling_factor: 1.5035,
};

function assertClose(found: ArrayLike<number>, expected: readonly number[], tolerance = 1e-5) {
  expected.forEach((value, i) => assert.ok(Math.abs(found[i] - value) < tolerance, `${found[i]}`));
}

test("the dummy autoencoder of Diffusers' tests gives its golden values", async () => {
  const vae = new AutoencoderKL(DUMMY_CONFIG);
  const weights = defaultVaeWeights(vae.config);
  const sizes = { height: 8, width: 8 };
  const { image } = await runModel(weights, (graph) => vae.captureDecode(graph, sizes), {
    latents: picture(new TorchGenerator(0).randn([1, 1, 8, 8])),
  });
  const pixels = image.toFloat32();
  assertClose([pixels[0], pixels[3], pixels[6]], [.137270406, .075287253, .272112787]);
  assertClose([pixels.reduce((a, b) => a + b, 0)], [-4.590010788], 1e-4);
  const { mean, logvar } = await runModel(weights, (graph) => vae.captureEncode(graph, sizes), {
    image: picture(new TorchGenerator(0).randn([1, 3, 8, 8])),
  });
  assertClose(mean.toFloat32(), [-.116927162, -.611083508, -.262526602, -.655460596]);
  assertClose(logvar.toFloat32(), [.153898612, -.003310449, .313046068, -.329595387]);
});

test("old names of the attention's projections are understood", async () => {
  const vae = new AutoencoderKL(DUMMY_CONFIG);
  const weights = defaultVaeWeights(vae.config);
  const names = { to_q: "query", to_k: "key", to_v: "value", "to_out.0": "proj_attn" };
  const old = new Map([...weights].map(([name, tensor]) => {
    const found = Object.entries(names).find(([now]) => name.includes(`.${now}.`));
    return [found ? name.replace(found[0], found[1]) : name, tensor];
  }));
  const latents = picture(new TorchGenerator(0).randn([1, 1, 4, 4]));
  const decode = (tensors: Map<string, HostTensor>) =>
    runModel(tensors, (graph) => vae.captureDecode(graph, { height: 4, width: 4 }), { latents });
  assert.deepEqual((await decode(old)).image.bytes, (await decode(weights)).image.bytes);
  for (const [name, tensor] of old) {
    const isMatrix = tensor.shape.length === 2;
    assert.equal(vae.isLinearWeight(name), isMatrix, name);
  }
});

test("absurd autoencoder configs are refused with the key at fault", () => {
  const cases: [string, unknown, string][] = [
    ["block_out_channels", [], "invalid_config"],
    ["block_out_channels", [6], "invalid_config"],
    ["latent_channels", 1e12, "invalid_config"],
    ["scaling_factor", 0, "invalid_config"],
    ["scaling_factor", "x", "invalid_config"],
    ["act_fn", "mystery", "unsupported"],
    ["up_block_types", ["AttnUpDecoderBlock2D"], "unsupported"],
  ];
  for (const [key, value, code] of cases) {
    assert.throws(
      () => new AutoencoderKL({ ...DUMMY_CONFIG, norm_num_groups: 4, [key]: value }),
      (error: { code?: string; message: string }) =>
        error.code === code && error.message.includes(key),
      key,
    );
  }
});
