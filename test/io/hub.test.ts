import assert from "node:assert/strict";
import { lstat, readdir, readFile, readlink, rm, writeFile } from "node:fs/promises";
import process from "node:process";
import { test } from "node:test";
import { openCheckpoint } from "../../src/io/checkpoint.ts";
import type { DownloadProgress } from "../../src/io/hub.ts";
import { resolveModel, type ResolveOptions } from "../../src/io/resolve_model.ts";
import { serializeSafetensors } from "../../src/io/safetensors_writer.ts";
import { HostTensor } from "../../src/tensor/host_tensor.ts";
import { COMMIT, type FakeHub, type Fault, sibling, startHub } from "./hub_server.ts";
import { inFolder, namesIn, rejects } from "./support.ts";

// What the user's own environment says about the Hub is not for these tests.
for (const name of ["HF_HUB_OFFLINE", "HF_TOKEN", "HF_ENDPOINT"]) delete process.env[name];

const json = (value: unknown) => new TextEncoder().encode(JSON.stringify(value));
const weights = (...values: number[]) =>
  serializeSafetensors({ x: HostTensor.fromFloat32(Float32Array.from(values)) });
const shard = (n: number) => `model-0000${n}-of-00002.safetensors`;

const FILES: Record<string, Uint8Array> = {
  "model_index.json": json({
    _class_name: "FluxPipeline",
    feature_extractor: [null, null],
    scheduler: ["diffusers", "FlowMatchEulerDiscreteScheduler"],
    text_encoder_2: ["transformers", "T5EncoderModel"],
    tokenizer: ["transformers", "CLIPTokenizer"],
    transformer: ["diffusers", "FluxTransformer2DModel"],
  }),
  "flux1.safetensors": weights(9),
  "README.md": json("a readme"),
  "scheduler/scheduler_config.json": json({ shift: 3 }),
  "tokenizer/merges.txt": json("merges"),
  "tokenizer/vocab.json": json({ a: 1 }),
  "text_encoder_2/config.json": json({ d_model: 8 }),
  "text_encoder_2/model.safetensors.index.json": json({ weight_map: { x: shard(1), y: shard(2) } }),
  [`text_encoder_2/${shard(1)}`]: weights(1),
  [`text_encoder_2/${shard(2)}`]: serializeSafetensors({ y: HostTensor.zeros("float32", [1]) }),
  "text_encoder_2/pytorch_model.bin": json("a pickle"),
  "transformer/config.json": json({ num_layers: 1 }),
  "transformer/diffusion_pytorch_model.safetensors": weights(1, 2, 3),
  "transformer/diffusion_pytorch_model.fp16.safetensors": weights(4),
};

const NOT_NEEDED = [
  "README.md",
  "flux1.safetensors",
  "text_encoder_2/pytorch_model.bin",
  "transformer/diffusion_pytorch_model.fp16.safetensors",
];

interface Setting {
  hub: FakeHub;
  cacheFolder: string;
  resolve(options?: ResolveOptions): Promise<string>;
}

async function withHub(
  action: (setting: Setting) => Promise<void>,
  files = FILES,
  extra: Record<string, unknown>[] = [],
) {
  const hub = await startHub(files, extra);
  try {
    await inFolder(async (cacheFolder) => {
      const base = { cacheFolder, endpoint: hub.endpoint };
      const resolve = (options: ResolveOptions = {}) =>
        resolveModel("owner/model", { ...base, ...options });
      await action({ hub, cacheFolder, resolve });
    });
  } finally {
    await hub.close();
  }
}

async function allFiles(folder: string, prefix = ""): Promise<string[]> {
  const entries = await readdir(folder, { withFileTypes: true });
  const nested = entries.map((entry) =>
    entry.isDirectory()
      ? allFiles(`${folder}/${entry.name}`, `${prefix}${entry.name}/`)
      : [`${prefix}${entry.name}`]
  );
  return (await Promise.all(nested)).flat().sort();
}

test("a pipeline is downloaded into the shared cache layout, and only what it needs", async () => {
  await withHub(async ({ cacheFolder, resolve, hub }) => {
    const folder = await resolve();
    const model = `${cacheFolder}/models--owner--model`;
    assert.equal(folder, `${model}/snapshots/${COMMIT}`);
    assert.equal(await readFile(`${model}/refs/main`, "utf8"), COMMIT);
    const wanted = Object.keys(FILES).filter((name) => !NOT_NEEDED.includes(name)).sort();
    assert.deepEqual(await allFiles(folder), wanted);
    for (const name of wanted) {
      assert.deepEqual(new Uint8Array(await readFile(`${folder}/${name}`)), FILES[name]);
      assert.ok((await lstat(`${folder}/${name}`)).isSymbolicLink());
    }
    const link = await readlink(`${folder}/transformer/diffusion_pytorch_model.safetensors`);
    const { lfs } = sibling(
      "x.safetensors",
      FILES["transformer/diffusion_pytorch_model.safetensors"],
    );
    assert.equal(link, `../../../blobs/${(lfs as { sha256: string }).sha256}`);
    assert.equal((await namesIn(`${model}/blobs`)).length, new Set(wanted).size);
    const checkpoint = await openCheckpoint(`${folder}/text_encoder_2`);
    assert.deepEqual([...checkpoint.entries.keys()].sort(), ["x", "y"]);
    await checkpoint.close();
    assert.ok(hub.tokens.every((token) => token === undefined));
  });
});

test("a downloaded model needs no network afterwards", async () => {
  await withHub(async ({ resolve, hub }) => {
    const folder = await resolve();
    const before = hub.requests.length;
    assert.equal(await resolve(), folder);
    assert.equal(await resolve({ localFilesOnly: true }), folder);
    assert.equal(await resolve({ localFilesOnly: true, revision: COMMIT }), folder);
    assert.equal(hub.requests.length, before);
  });
});

test("a variant is fetched where there is one, plain weights elsewhere", async () => {
  await withHub(async ({ resolve }) => {
    const names = await allFiles(await resolve({ variant: "fp16" }));
    assert.ok(names.includes("transformer/diffusion_pytorch_model.fp16.safetensors"));
    assert.ok(!names.includes("transformer/diffusion_pytorch_model.safetensors"));
    assert.ok(names.includes(`text_encoder_2/${shard(1)}`));
  });
});

test("an incomplete copy is completed, fetching only what is missing", async () => {
  await withHub(async ({ resolve, hub }) => {
    const folder = await resolve();
    await rm(`${folder}/text_encoder_2/${shard(2)}`);
    const error = await rejects(
      () => resolve({ localFilesOnly: true }),
      "model_not_found",
      /incomplete copy/,
    );
    assert.ok(error.detail.remedy);
    const before = hub.requests.length;
    await resolve();
    assert.equal(hub.requests.length, before + 1); // the listing: the blob itself was still there
    await resolve({ localFilesOnly: true });
  });
});

test("redirects are followed, as the Hub answers for large files", async () => {
  await withHub(async ({ resolve, hub }) => {
    const name = "transformer/diffusion_pytorch_model.safetensors";
    hub.faults.set(name, "redirect");
    const folder = await resolve();
    assert.deepEqual(new Uint8Array(await readFile(`${folder}/${name}`)), FILES[name]);
  });
});

test("progress is told per file, up to its whole size", async () => {
  await withHub(async ({ resolve }) => {
    const last = new Map<string, DownloadProgress>();
    await resolve({ onProgress: (progress) => last.set(progress.file, progress) });
    const name = "transformer/diffusion_pytorch_model.safetensors";
    assert.deepEqual(last.get(name), {
      file: name,
      done: FILES[name].byteLength,
      total: FILES[name].byteLength,
    });
  });
});

test("a token goes along", async () => {
  await withHub(async ({ resolve, hub }) => {
    await resolve({ token: "hf_test" });
    assert.ok(hub.tokens.every((token) => token === "Bearer hf_test"));
  });
});

const FAULTS: [Fault, RegExp][] = [
  ["truncated", /wrong size/],
  ["too long", /wrong size/],
  ["bit flip", /wrong hash/],
  ["cut connection", /connection broke|wrong size/],
  ["cut connection, then wrong ranges", /connection broke.*from \d+ on/],
  ["stall", /connection broke.*nothing came/],
];

for (const [fault, message] of FAULTS) {
  for (const name of ["tokenizer/vocab.json", "transformer/diffusion_pytorch_model.safetensors"]) {
    test(`a download with the fault "${fault}" leaves no wrong file: ${name}`, async () => {
      await withHub(async ({ resolve, hub, cacheFolder }) => {
        hub.faults.set(name, fault);
        await rejects(
          () => resolve({ stallTimeout: 300, retryDelay: 1 }),
          "download_failed",
          message,
        );
        const files = await allFiles(cacheFolder);
        assert.ok(!files.some((file) => file.endsWith(".part")), `${files}`);
        assert.ok(!files.some((file) => file.endsWith(name)));
        const { blobId, lfs } = sibling(name, FILES[name]) as {
          blobId: string;
          lfs?: { sha256: string };
        };
        assert.ok(!files.some((file) => file.endsWith(lfs?.sha256 ?? blobId)));
        hub.faults.clear();
        await resolve();
        await resolve({ localFilesOnly: true });
      });
    });
  }
}

for (const fault of ["cut connection, then ranges", "cut connection, then all"] as const) {
  test(`a download goes on where it broke off: ${fault}`, async () => {
    await withHub(async ({ resolve, hub }) => {
      const names = ["tokenizer/vocab.json", "transformer/diffusion_pytorch_model.safetensors"];
      for (const name of names) hub.faults.set(name, fault);
      const told: number[] = [];
      const onProgress = ({ file, done }: DownloadProgress) => {
        if (file === names[1]) told.push(done);
      };
      const folder = await resolve({ retryDelay: 1, onProgress });
      for (const name of names) {
        assert.deepEqual(new Uint8Array(await readFile(`${folder}/${name}`)), FILES[name]);
        assert.equal(hub.requests.filter((path) => path.endsWith(name)).length, 2);
      }
      assert.deepEqual(told, told.toSorted((a, b) => a - b));
      assert.equal(told.at(-1), FILES[names[1]].byteLength);
    });
  });
}

test("cancelling ends the pause before a broken connection is made again", async () => {
  await withHub(async ({ resolve, hub, cacheFolder }) => {
    hub.faults.set("tokenizer/vocab.json", "truncated");
    const controller = new AbortController();
    const onProgress = ({ file }: DownloadProgress) => {
      if (file.endsWith("vocab.json")) setTimeout(() => controller.abort(), 50);
    };
    const options = { signal: controller.signal, onProgress, retryDelay: 60_000 };
    await rejects(() => resolve(options), "aborted");
    assert.ok(!(await allFiles(cacheFolder)).some((file) => file.endsWith(".part")));
  });
});

test("a file that the Hub lists and lacks, or a Hub in trouble, is told", async () => {
  await withHub(async ({ resolve, hub }) => {
    hub.faults.set("tokenizer/vocab.json", "missing");
    await rejects(() => resolve(), "model_not_found", /404/);
    hub.faults.set("tokenizer/vocab.json", "server error");
    await rejects(() => resolve(), "model_not_found", /503.*try again later/);
  });
});

test("an unknown model and one behind a licence are told apart", async () => {
  await withHub(async ({ hub, cacheFolder }) => {
    const options = { cacheFolder, endpoint: hub.endpoint };
    await rejects(() => resolveModel("owner/none", options), "model_not_found", /Check the name/);
    await rejects(
      () => resolveModel("owner/gated", options),
      "model_not_found",
      /licence.*HF_TOKEN/,
    );
    assert.deepEqual(await namesIn(cacheFolder), []);
  });
});

test("without network an unknown model is not found, and the message says what to do", async () => {
  const hub = await startHub({});
  await hub.close();
  await inFolder(async (cacheFolder) => {
    const options = { cacheFolder, endpoint: hub.endpoint };
    const error = await rejects(
      () => resolveModel("owner/model", options),
      "model_not_found",
      /no network/,
    );
    assert.match(error.detail.remedy!, /Connect to the network, or give the path/);
  });
});

test("a repository without model_index.json, or with a shard missing, is told", async () => {
  const { "model_index.json": _, ...single } = FILES;
  await withHub(async ({ resolve }) => {
    await rejects(() => resolve(), "model_not_found", /Diffusers folder layout/);
  }, single);
  const { [`text_encoder_2/${shard(2)}`]: __, ...incomplete } = FILES;
  await withHub(async ({ resolve }) => {
    await rejects(() => resolve(), "model_not_found", /00002-of-00002/);
  }, incomplete);
});

const HOSTILE_PATHS = [
  "../evil",
  "/etc/evil",
  "a/../../evil",
  "a\\..\\evil",
  "C:evil",
  "a//b",
  "",
  ".",
];

for (const path of HOSTILE_PATHS) {
  test(`a listing with the path ${JSON.stringify(path)} is refused`, async () => {
    await withHub(
      async ({ resolve, cacheFolder }) => {
        await rejects(() => resolve(), "unsafe_path", /outside the model folder/);
        assert.deepEqual(await namesIn(cacheFolder), []);
      },
      FILES,
      [{ ...sibling("x", json(1)), rfilename: path }],
    );
  });
}

test("a listing with hashes that are paths, or without sizes, is refused", async () => {
  const wrong = [{ blobId: "../../evil" }, { blobId: undefined }, { size: -0.5 }, { size: "1" }];
  for (const change of wrong) {
    await withHub(
      async ({ resolve }) => void await rejects(() => resolve(), "download_failed", /Hub's answer/),
      FILES,
      [{ ...sibling("tokenizer/x.json", json(1)), ...change }],
    );
  }
});

test("cancelling ends a download and leaves no part of it", async () => {
  await withHub(async ({ resolve, hub, cacheFolder }) => {
    hub.faults.set("transformer/diffusion_pytorch_model.safetensors", "stall");
    const controller = new AbortController();
    const onProgress = ({ file }: DownloadProgress) => {
      if (file.startsWith("transformer/diff")) controller.abort();
    };
    await rejects(() => resolve({ signal: controller.signal, onProgress }), "aborted");
    assert.ok(!(await allFiles(cacheFolder)).some((file) => file.endsWith(".part")));
    await rejects(() => resolve({ signal: controller.signal }), "aborted");
  });
});

test("a blob of the wrong size is fetched again", async () => {
  await withHub(async ({ resolve, cacheFolder }) => {
    const folder = await resolve();
    const blobs = `${cacheFolder}/models--owner--model/blobs`;
    const name = "tokenizer/vocab.json";
    const { blobId } = sibling(name, FILES[name]);
    await writeFile(`${blobs}/${blobId}`, "short");
    await rm(`${folder}/transformer/diffusion_pytorch_model.safetensors`);
    await resolve();
    assert.deepEqual(new Uint8Array(await readFile(`${folder}/${name}`)), FILES[name]);
  });
});
