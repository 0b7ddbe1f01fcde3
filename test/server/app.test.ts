import assert from "node:assert/strict";
import { test } from "node:test";
import type { ApiErrorBody } from "../../server/api_error.ts";
import { type AppOptions, createApp } from "../../server/app.ts";
import { JobQueue } from "../../server/job_queue.ts";
import { DEFAULT_LIMITS } from "../../server/limits.ts";
import { ServerState } from "../../server/server_state.ts";
import { HalftoneError } from "../../src/errors.ts";
import { FAKE_PNG, FakeMaker, until } from "./fake_maker.ts";

const IMAGES = "/v1/images/generations";

interface Setup {
  readonly maker: FakeMaker;
  readonly queue: JobQueue;
  readonly errors: unknown[];
  request(path: string, init?: RequestInit): Promise<Response>;
  post(body: unknown, init?: RequestInit): Promise<Response>;
}

async function setup(
  options: AppOptions & { held?: boolean; queueLength?: number } = {},
): Promise<Setup> {
  const maker = new FakeMaker({ held: options.held ?? false });
  const queue = new JobQueue(options.queueLength ?? 2);
  const state = new ServerState(queue, Promise.resolve(maker));
  const errors: unknown[] = [];
  const app = createApp(state, { onError: (error) => errors.push(error), ...options });
  await until(() => state.phase === "ready");
  const request = async (path: string, init?: RequestInit) =>
    await app.request(`http://127.0.0.1:8000${path}`, init);
  const post = (body: unknown, init: RequestInit = {}) =>
    request(IMAGES, {
      method: "POST",
      body: typeof body === "string" ? body : JSON.stringify(body),
      ...init,
      headers: { "Content-Type": "application/json", ...init.headers },
    });
  return { maker, queue, errors, request, post };
}

async function errorOf(response: Response): Promise<ApiErrorBody["error"]> {
  return (await response.json() as ApiErrorBody).error;
}

test("a picture comes back as base64 with its size and seed", async () => {
  const { maker, post } = await setup();
  const response = await post({ prompt: "a red star", seed: 7, n: 2, size: "64x128" });
  assert.equal(response.status, 200);
  const body = await response.json();
  const picture = { b64_json: btoa(String.fromCharCode(...FAKE_PNG)) };
  assert.deepEqual(body.data, [picture, picture]);
  assert.equal(body.size, "64x128");
  assert.equal(body.seed, 7);
  assert.ok(Math.abs(body.created - Date.now() / 1000) < 5);
  assert.equal(maker.runs[0]!.job.height, 128);
});

test("absent fields take the model's defaults and a seed of their own", async () => {
  const { maker, post } = await setup();
  const seeds = [await post({ prompt: "x" }), await post({ prompt: "x", seed: null })];
  const { seed, ...job } = maker.runs[0]!.job;
  assert.deepEqual(job, {
    prompt: "x",
    width: 128,
    height: 96,
    numImages: 1,
    numInferenceSteps: 7,
    guidanceScale: 2.5,
    trueCfgScale: 1,
  });
  assert.ok(Number.isSafeInteger(seed));
  const answers = await Promise.all(seeds.map((response) => response.json()));
  assert.notEqual(answers[0].seed, answers[1].seed);
});

test("the extension fields reach the pipeline", async () => {
  const { maker, post } = await setup();
  await post({
    prompt: "x",
    negative_prompt: "y",
    true_cfg_scale: 2,
    guidance_scale: 3.5,
    num_inference_steps: 4,
    seed: 0,
  });
  const { job } = maker.runs[0]!;
  assert.equal(job.negativePrompt, "y");
  assert.equal(job.trueCfgScale, 2);
  assert.equal(job.guidanceScale, 3.5);
  assert.equal(job.numInferenceSteps, 4);
  assert.equal(job.seed, 0);
});

const long = "é".repeat(DEFAULT_LIMITS.promptBytes / 2);
const REFUSED: readonly [name: string, body: Record<string, unknown>, param: string][] = [
  ["no prompt", {}, "prompt"],
  ["an empty prompt", { prompt: "" }, "prompt"],
  ["a prompt that is no text", { prompt: 3 }, "prompt"],
  ["a prompt over the limit", { prompt: `${long}x` }, "prompt"],
  ["no image", { prompt: "x", n: 0 }, "n"],
  ["too many images", { prompt: "x", n: 5 }, "n"],
  ["half an image", { prompt: "x", n: 1.5 }, "n"],
  ["a size that is no size", { prompt: "x", size: "big" }, "size"],
  ["a width of zero", { prompt: "x", size: "0x64" }, "size"],
  ["a side under the limit", { prompt: "x", size: "48x64" }, "size"],
  ["a side over the limit", { prompt: "x", size: "2064x64" }, "size"],
  ["a side off the grid", { prompt: "x", size: "100x64" }, "size"],
  ["too many pixels", { prompt: "x", size: "2048x1040" }, "size"],
  ["a url as response", { prompt: "x", response_format: "url" }, "response_format"],
  ["jpeg", { prompt: "x", output_format: "jpeg" }, "output_format"],
  ["a stream", { prompt: "x", stream: true }, "stream"],
  ["no steps", { prompt: "x", num_inference_steps: 0 }, "num_inference_steps"],
  ["too many steps", { prompt: "x", num_inference_steps: 51 }, "num_inference_steps"],
  ["steps as text", { prompt: "x", num_inference_steps: "4" }, "num_inference_steps"],
  ["a negative seed", { prompt: "x", seed: -1 }, "seed"],
  ["a seed that is not exact", { prompt: "x", seed: 2 ** 53 }, "seed"],
  ["a negative scale", { prompt: "x", guidance_scale: -1 }, "guidance_scale"],
  ["a scale over the limit", { prompt: "x", true_cfg_scale: 101 }, "true_cfg_scale"],
  ["an unknown field", { prompt: "x", step: 3 }, "step"],
];

for (const [name, body, param] of REFUSED) {
  test(`a request with ${name} is refused by name of its field`, async () => {
    const { maker, post } = await setup();
    const response = await post(body);
    assert.equal(response.status, 400);
    const error = await errorOf(response);
    assert.equal(error.param, param);
    assert.equal(error.type, "invalid_request_error");
    assert.match(error.message, new RegExp(param));
    assert.equal(maker.runs.length, 0);
  });
}

test("the values at the limits are taken", async () => {
  const { maker, post } = await setup();
  const bodies = [
    { prompt: long },
    { prompt: "x", n: 4, size: "64x2048", num_inference_steps: 50 },
    { prompt: "x", size: "2048x1024", num_inference_steps: 1, guidance_scale: 0 },
    { prompt: "x", size: "auto", seed: 2 ** 53 - 1, true_cfg_scale: 100 },
  ];
  for (const body of bodies) assert.equal((await post(body)).status, 200);
  assert.equal(maker.runs.length, bodies.length);
});

test("bodies that are not JSON objects are refused", async () => {
  const { post } = await setup();
  for (const body of ["", "{", "[]", "null", '"x"', '{"prompt": 1e999}']) {
    assert.equal((await post(body)).status, 400, body);
  }
  assert.equal((await errorOf(await post("{"))).code, "invalid_json");
});

test("a body over 64 KiB is refused, with and without a length", async () => {
  const { post } = await setup();
  const body = JSON.stringify({ prompt: "x".repeat(DEFAULT_LIMITS.bodyBytes) });
  assert.equal((await post(body)).status, 413);
  const stream = new ReadableStream<Uint8Array>({
    start(controller) {
      controller.enqueue(new TextEncoder().encode(body));
      controller.close();
    },
  });
  const init = { method: "POST", body: stream, duplex: "half" } as RequestInit;
  assert.equal((await post("", init)).status, 413);
});

test("a body of another type is refused", async () => {
  const { post } = await setup();
  for (const type of ["text/plain", "multipart/form-data", "application/jsonx"]) {
    const response = await post({ prompt: "x" }, { headers: { "Content-Type": type } });
    assert.equal(response.status, 415, type);
  }
});

test("an unknown model is refused and the loaded one is taken", async () => {
  const { post, request } = await setup();
  const response = await post({ prompt: "x", model: "dall-e-3" });
  assert.equal(response.status, 404);
  assert.equal((await errorOf(response)).code, "model_not_found");
  assert.equal((await post({ prompt: "x", model: "demo" })).status, 200);
  assert.equal((await request("/v1/models/other")).status, 404);
  assert.equal((await (await request("/v1/models/demo")).json()).id, "demo");
});

test("the list of models holds the loaded one", async () => {
  const { request } = await setup();
  const list = await (await request("/v1/models")).json();
  assert.equal(list.object, "list");
  assert.deepEqual(list.data.map((model: { id: string }) => model.id), ["demo"]);
});

test("a route that does not exist answers 404 in OpenAI's shape", async () => {
  const { request } = await setup();
  const response = await request("/v1/images/edits", { method: "POST" });
  assert.equal(response.status, 404);
  assert.equal((await errorOf(response)).code, "not_found");
});

test("jobs run one at a time, in order", async () => {
  const { maker, post } = await setup({ held: true });
  const answers = ["a", "b", "c"].map((prompt) => post({ prompt }));
  for (let index = 0; index < 3; index++) {
    await until(() => maker.runs.length === index + 1);
    maker.runs[index]!.finish();
  }
  for (const answer of await Promise.all(answers)) assert.equal(answer.status, 200);
  assert.deepEqual(maker.runs.map((run) => run.job.prompt), ["a", "b", "c"]);
  assert.equal(maker.mostAtOnce, 1);
});

test("a full queue answers 429 with Retry-After", async () => {
  const { maker, queue, post } = await setup({ held: true, queueLength: 1 });
  const running = post({ prompt: "a" });
  await until(() => maker.runs.length === 1);
  const waiting = post({ prompt: "b" });
  await until(() => queue.length === 1);
  const refused = await post({ prompt: "c" });
  assert.equal(refused.status, 429);
  assert.ok(Number(refused.headers.get("Retry-After")) >= 1);
  assert.equal((await errorOf(refused)).type, "rate_limit_error");
  maker.runs[0]!.finish();
  await until(() => maker.runs.length === 2);
  maker.runs[1]!.finish();
  assert.deepEqual([(await running).status, (await waiting).status], [200, 200]);
});

test("a client that leaves stops its running job, and the next one starts", async () => {
  const { maker, post } = await setup({ held: true });
  const client = new AbortController();
  const leaving = post({ prompt: "a" }, { signal: client.signal });
  const staying = post({ prompt: "b" });
  await until(() => maker.runs.length === 1);
  client.abort();
  assert.equal((await leaving).status, 499);
  assert.ok(maker.runs[0]!.signal.aborted);
  await until(() => maker.runs.length === 2);
  maker.runs[1]!.finish();
  assert.equal((await staying).status, 200);
  assert.equal(maker.mostAtOnce, 1);
});

test("a client that leaves while it waits never runs", async () => {
  const { maker, queue, errors, post } = await setup({ held: true });
  const running = post({ prompt: "a" });
  await until(() => maker.runs.length === 1);
  const client = new AbortController();
  const leaving = post({ prompt: "b" }, { signal: client.signal });
  await until(() => queue.length === 1);
  client.abort();
  assert.equal((await leaving).status, 499);
  assert.equal(queue.length, 0);
  maker.runs[0]!.finish();
  assert.equal((await running).status, 200);
  assert.equal(maker.runs.length, 1);
  assert.deepEqual(errors, []);
});

test("draining fails the waiting jobs, finishes the running one and refuses new ones", async () => {
  const { maker, queue, post, request } = await setup({ held: true });
  const running = post({ prompt: "a" });
  await until(() => maker.runs.length === 1);
  const waiting = post({ prompt: "b" });
  await until(() => queue.length === 1);
  const drained = queue.drain();
  assert.equal((await waiting).status, 503);
  assert.equal((await post({ prompt: "c" })).status, 503);
  assert.equal((await request("/readyz")).status, 503);
  assert.equal((await request("/healthz")).status, 200);
  maker.runs[0]!.finish();
  assert.equal((await running).status, 200);
  await drained;
  assert.equal(queue.busy, false);
});

test("faults of the request show their text, faults of the server do not", async () => {
  const { maker, errors, post } = await setup({ held: true });
  const failures = [
    new HalftoneError("invalid_argument", "Cannot draw this"),
    new HalftoneError("backend_failed", "secret at 0x1234", { file: "/home/someone/weights" }),
    new TypeError("secret"),
    new HalftoneError("out_of_memory", "secret"),
  ];
  const statuses: number[] = [];
  const messages: string[] = [];
  for (const failure of failures) {
    const answer = post({ prompt: "a" });
    const index = statuses.length;
    await until(() => maker.runs.length === index + 1);
    maker.runs[index]!.fail(failure);
    const response = await answer;
    statuses.push(response.status);
    messages.push((await errorOf(response)).message);
  }
  assert.deepEqual(statuses, [400, 500, 500, 503]);
  assert.equal(messages[0], "Cannot draw this");
  assert.ok(messages.slice(1).every((message) => !/secret|someone/.test(message)));
  assert.deepEqual(errors, failures.slice(1));
});

test("readyz and the routes say that the model is loading, and that it failed", async () => {
  const queue = new JobQueue(1);
  const loading = Promise.withResolvers<FakeMaker>();
  const state = new ServerState(queue, loading.promise);
  const app = createApp(state);
  const get = async (path: string) => await app.request(`http://localhost${path}`);
  assert.equal((await get("/healthz")).status, 200);
  assert.deepEqual(await (await get("/readyz")).json(), { status: "loading" });
  assert.equal((await errorOf(await get("/v1/models"))).code, "model_loading");
  loading.reject(new Error("no weights"));
  await until(() => state.phase === "failed");
  assert.equal((await get("/readyz")).status, 503);
  assert.equal((await errorOf(await get("/v1/models"))).code, "model_failed");
});

test("only this machine's names are taken as Host, and only our own Origin", async () => {
  const { request } = await setup();
  const status = async (headers: Record<string, string>) =>
    (await request("/v1/models", { headers })).status;
  for (const host of ["localhost", "127.0.0.1:8000", "[::1]:8000", "localhost:1"]) {
    assert.equal(await status({ Host: host }), 200, host);
  }
  for (const host of ["example.com", "127.0.0.1.example.com", "localhost.example.com:80"]) {
    assert.equal(await status({ Host: host }), 403, host);
  }
  assert.equal(await status({ Host: "localhost:8000", Origin: "http://localhost:8000" }), 200);
  for (const origin of ["null", "http://example.com", "http://localhost:9", "localhost:8000"]) {
    assert.equal(await status({ Host: "localhost:8000", Origin: origin }), 403, origin);
  }
});

test("no answer invites other sites", async () => {
  const { request } = await setup();
  const response = await request("/v1/models");
  assert.equal(response.headers.get("Access-Control-Allow-Origin"), null);
  assert.equal(response.headers.get("X-Content-Type-Options"), "nosniff");
});

test("with a token every route of /v1 demands it, health does not", async () => {
  const { request, post } = await setup({ token: "secret-token" });
  const auth = (value: string) => ({ headers: { Authorization: value } });
  for (const response of [await request("/v1/models"), await post({ prompt: "x" })]) {
    assert.equal(response.status, 401);
    assert.equal((await errorOf(response)).code, "invalid_api_key");
  }
  assert.equal((await request("/v1/models", auth("Bearer wrong"))).status, 401);
  assert.equal((await request("/v1/models", auth("Bearer secret-token"))).status, 200);
  assert.equal((await post({ prompt: "x" }, auth("Bearer secret-token"))).status, 200);
  assert.equal((await request("/healthz")).status, 200);
});
