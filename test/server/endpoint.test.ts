import assert from "node:assert/strict";
import { cpSync, mkdtempSync, rmSync } from "node:fs";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import { decode } from "fast-png";
import OpenAI from "openai";
import { type HalftoneProcess, runHalftone, startHalftone } from "../cli/halftone_process.ts";

let server: HalftoneProcess;
let url: string;
let client: OpenAI;

before(async () => {
  // One thread leaves the other processor to this test.
  server = startHalftone(["serve", "--port", "0", "--threads", "1"]);
  await server.says("ready:");
  url = /listening on (\S+)/.exec(server.stderr())![1]!;
  client = new OpenAI({ baseURL: `${url}/v1`, apiKey: "unused", maxRetries: 0 });
});

after(async () => {
  server.kill("SIGTERM");
  await server.finished;
});

/** OpenAI's types do not know the fields that servers of open models add. */
interface ExtendedParams extends OpenAI.ImageGenerateParamsNonStreaming {
  readonly seed?: number;
  readonly num_inference_steps?: number;
}

function draw(params: ExtendedParams, signal?: AbortSignal): Promise<OpenAI.ImagesResponse> {
  return client.images.generate({ num_inference_steps: 2, ...params } as ExtendedParams, {
    signal,
  });
}

function pngOf(response: OpenAI.ImagesResponse, index = 0): Uint8Array {
  return Uint8Array.fromBase64(response.data![index]!.b64_json!);
}

test("OpenAI's client gets PNG pictures of the size it asks for", async () => {
  const prompt = "a red star above a blue house";
  const response = await draw({ prompt, model: "demo", n: 2, size: "64x128" as "auto", seed: 1 });
  assert.equal(response.data!.length, 2);
  for (const index of [0, 1]) {
    const { width, height, channels } = decode(pngOf(response, index));
    assert.deepEqual([width, height, channels], [64, 128, 3]);
  }
  assert.notDeepEqual(pngOf(response, 0), pngOf(response, 1));
});

test("the same seed gives the same bytes, another seed others", async () => {
  const responses: Uint8Array[] = [];
  for (const seed of [5, 5, 6]) responses.push(pngOf(await draw({ prompt: "a tree", seed })));
  assert.deepEqual(responses[0], responses[1]);
  assert.notDeepEqual(responses[0], responses[2]);
  assert.equal(decode(responses[0]!).width, 128); // the demo model's own size
});

test("OpenAI's client understands the errors", async () => {
  const badSize = draw({ prompt: "x", size: "100x100" as "auto" });
  await assert.rejects(badSize, (error) => {
    assert.ok(error instanceof OpenAI.BadRequestError);
    assert.equal(error.param, "size");
    assert.equal(error.type, "invalid_request_error");
    return true;
  });
  await assert.rejects(draw({ prompt: "x", model: "dall-e-3" }), OpenAI.NotFoundError);
});

test("OpenAI's client lists the model", async () => {
  const ids = (await client.models.list()).data.map((model) => model.id);
  assert.deepEqual(ids, ["demo"]);
});

test("healthz answers within 50 ms while a picture is made", async () => {
  let isDone = false;
  const picture = draw({ prompt: "a moon", size: "256x256", num_inference_steps: 6 });
  const ended = picture.finally(() => isDone = true);
  const times: number[] = [];
  while (!isDone) {
    const started = performance.now();
    await (await fetch(`${url}/healthz`)).text();
    times.push(performance.now() - started);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  await ended;
  times.sort((a, b) => a - b);
  // Nine in ten, because a busy machine may hold any process up for longer than that.
  const slow = times[Math.floor(times.length * 0.9)]!;
  assert.ok(times.length >= 20, `only ${times.length} requests`);
  assert.ok(slow < 50, `nine in ten within ${slow.toFixed(1)} ms`);
});

test("a client that goes away stops its picture", async () => {
  const leaving = new AbortController();
  const started = performance.now();
  const long = draw({ prompt: "x", size: "512x512", num_inference_steps: 50 }, leaving.signal);
  setTimeout(() => leaving.abort(), 300);
  await assert.rejects(long, OpenAI.APIUserAbortError);
  await draw({ prompt: "a cross", size: "64x64", num_inference_steps: 1 });
  const seconds = (performance.now() - started) / 1000;
  // The long picture would take minutes, and the short one waits until it has ended.
  assert.ok(seconds < 20, `${seconds.toFixed(1)} s`);
});

/** Sends a request as many clients do, the body in a packet of its own, and goes away. */
async function leaveInTheMiddle(body: string): Promise<void> {
  const socket = connect(Number(new URL(url).port), "127.0.0.1");
  const wait = (milliseconds: number) => new Promise((done) => setTimeout(done, milliseconds));
  await new Promise<void>((resolve) => socket.once("connect", resolve));
  socket.write(
    "POST /v1/images/generations HTTP/1.1\r\nHost: 127.0.0.1\r\n" +
      `Content-Type: application/json\r\nContent-Length: ${body.length}\r\n\r\n`,
  );
  await wait(50);
  socket.write(body);
  await wait(300);
  socket.destroy();
}

test("a client whose body came after its headers stops its picture too", async () => {
  const started = performance.now();
  await leaveInTheMiddle(
    JSON.stringify({ prompt: "x", size: "512x512", num_inference_steps: 50 }),
  );
  await draw({ prompt: "a cross", size: "64x64", num_inference_steps: 1 });
  const seconds = (performance.now() - started) / 1000;
  assert.ok(seconds < 20, `${seconds.toFixed(1)} s`);
});

test("SIGTERM lets the running picture end, then the server ends with code 0", async () => {
  const own = startHalftone(["serve", "--port", "0", "--threads", "1"]);
  await own.says("ready:");
  const address = /listening on (\S+)/.exec(own.stderr())![1]!;
  const answer = fetch(`${address}/v1/images/generations`, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ prompt: "a heart", num_inference_steps: 8 }),
  });
  await new Promise((resolve) => setTimeout(resolve, 200));
  own.kill("SIGTERM");
  assert.equal((await answer).status, 200);
  assert.equal((await own.finished).code, 0);
});

test("an address that others can reach is refused without a token", async () => {
  const { code, stderr } = await runHalftone(["serve", "--host", "0.0.0.0", "--port", "0"]);
  assert.equal(code, 1);
  assert.match(stderr, /error\[invalid_argument\].*token/);
});

test("a model that cannot be loaded ends the server with the error's own code", async () => {
  const folder = mkdtempSync(join(tmpdir(), "halftone-serve-"));
  try {
    const demo = fileURLToPath(new URL("../../models/demo", import.meta.url));
    cpSync(demo, folder, { recursive: true, filter: (path) => !path.endsWith(".safetensors") });
    const { code, stderr } = await runHalftone(["serve", "--port", "0", "--model", folder]);
    assert.equal(code, 1);
    assert.match(stderr, /^error\[missing_file\]: .*transformer/m);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
});
