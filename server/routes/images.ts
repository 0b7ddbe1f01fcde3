/** POST /v1/images/generations. */

import { type Context, Hono } from "hono";
import { invalidRequest } from "../api_error.ts";
import { jsonBody } from "../guards.ts";
import type { ServerLimits } from "../limits.ts";
import type { MadePictures, PictureJob } from "../picture_maker.ts";
import { requestChecker } from "../request_schema.ts";
import type { ServerState } from "../server_state.ts";
import { requireModel } from "./models.ts";

/** The answer: OpenAI's fields, and the seed that draws the same pictures again. */
interface ImagesBody {
  readonly created: number;
  readonly background: "opaque";
  readonly output_format: "png";
  readonly size: string;
  readonly seed: number;
  readonly data: readonly { readonly b64_json: string }[];
}

/** The image route. */
export function imageRoutes(state: ServerState, limits: ServerLimits): Hono {
  const check = requestChecker(limits);
  return new Hono().post(
    "/v1/images/generations",
    jsonBody(limits.bodyBytes),
    async (context) => {
      const { maker } = state;
      const { model, job } = check(await bodyOf(context), maker.defaults);
      requireModel(state, model);
      const { signal } = context.req.raw;
      const made = await state.queue.run(() => maker.make(job, signal), signal);
      return context.json(bodyWith(job, made));
    },
  );
}

async function bodyOf(context: Context): Promise<unknown> {
  // Read first: a body that breaks off or is too long is not a fault of its JSON.
  const text = await context.req.text();
  try {
    return JSON.parse(text);
  } catch {
    throw invalidRequest("The body is not valid JSON", null, "invalid_json");
  }
}

function bodyWith(job: PictureJob, { files, width, height }: MadePictures): ImagesBody {
  return {
    created: Math.floor(Date.now() / 1000),
    background: "opaque",
    output_format: "png",
    size: `${width}x${height}`,
    seed: job.seed,
    data: files.map((file) => ({ b64_json: file.toBase64() })),
  };
}
