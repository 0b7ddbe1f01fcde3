/** The body of POST /v1/images/generations, checked; the schema itself stays inside the server. */

import { z } from "zod";
import { type ApiError, invalidRequest } from "./api_error.ts";
import type { ServerLimits } from "./limits.ts";
import type { PictureDefaults, PictureJob } from "./picture_maker.ts";

/** A checked request: the job, and the model it names. */
export interface CheckedRequest {
  readonly model: string | undefined;
  readonly job: PictureJob;
}

/**
 * What checks a body: absent fields take the model's defaults. Throws an
 * `ApiError` that names the field at fault.
 */
export type RequestChecker = (body: unknown, defaults: PictureDefaults) => CheckedRequest;

const MAX_SEED = Number.MAX_SAFE_INTEGER;

/** A checker for one server's limits. */
export function requestChecker(limits: ServerLimits): RequestChecker {
  const schema = bodySchema(limits);
  return (body, defaults) => {
    const parsed = schema.safeParse(body);
    if (!parsed.success) throw faultOf(parsed.error.issues[0]!);
    return { model: parsed.data.model, job: jobOf(parsed.data, limits, defaults) };
  };
}

type Body = z.infer<ReturnType<typeof bodySchema>>;

function bodySchema(limits: ServerLimits) {
  const prompt = z.string().refine((text) => byteLength(text) <= limits.promptBytes, {
    error: `must be at most ${limits.promptBytes} bytes of UTF-8`,
  });
  const scale = z.number().min(0).max(limits.maxScale);
  return z.strictObject({
    prompt: prompt.min(1),
    model: z.string().max(256).optional(),
    n: z.int().min(1).max(limits.maxImages).nullish(),
    size: z.string().regex(/^(auto|[1-9]\d{0,4}x[1-9]\d{0,4})$/, {
      error: 'must be "auto" or WIDTHxHEIGHT, such as "512x512"',
    }).nullish(),
    response_format: z.literal("b64_json").nullish(),
    output_format: z.literal("png").nullish(),
    stream: z.literal(false).nullish(),
    // Taken for the sake of OpenAI's clients; the values that would change nothing here.
    quality: z.enum(["auto", "standard"]).nullish(),
    background: z.enum(["auto", "opaque"]).nullish(),
    moderation: z.enum(["auto", "low"]).nullish(),
    user: z.string().max(256).optional(),
    // Ours, under the names that other servers of open models use.
    seed: z.int().min(0).max(MAX_SEED).nullish(),
    num_inference_steps: z.int().min(1).max(limits.maxSteps).nullish(),
    guidance_scale: scale.nullish(),
    negative_prompt: prompt.nullish(),
    true_cfg_scale: scale.nullish(),
  });
}

function jobOf(body: Body, limits: ServerLimits, defaults: PictureDefaults): PictureJob {
  return {
    prompt: body.prompt,
    ...sizeOf(body.size ?? "auto", limits, defaults),
    numImages: body.n ?? 1,
    seed: body.seed ?? randomSeed(),
    trueCfgScale: body.true_cfg_scale ?? 1,
    ...given("negativePrompt", body.negative_prompt),
    ...given("numInferenceSteps", body.num_inference_steps ?? defaults.numInferenceSteps),
    ...given("guidanceScale", body.guidance_scale ?? defaults.guidanceScale),
  };
}

/** The field when it has a value, so that the pipeline's own default stays for the rest. */
function given<Key extends string, Value>(key: Key, value: Value | null | undefined) {
  return value == null ? {} : { [key]: value } as { [K in Key]: Value };
}

function both({ width, height }: PictureDefaults) {
  return { ...given("width", width), ...given("height", height) };
}

function sizeOf(size: string, limits: ServerLimits, defaults: PictureDefaults) {
  if (size === "auto") return both(defaults);
  const [width, height] = size.split("x").map(Number) as [number, number];
  for (const side of [width, height]) {
    if (side < limits.minSide || side > limits.maxSide || side % limits.sideMultiple !== 0) {
      throw invalidRequest(
        `Invalid size: sides must be multiples of ${limits.sideMultiple} from ` +
          `${limits.minSide} to ${limits.maxSide} pixels, found ${size}`,
        "size",
        "invalid_value",
      );
    }
  }
  if (width * height > limits.maxPixels) {
    throw invalidRequest(
      `Invalid size: at most ${limits.maxPixels} pixels, found ${size}`,
      "size",
      "invalid_value",
    );
  }
  return { width, height };
}

function faultOf(issue: z.core.$ZodIssue): ApiError {
  if (issue.code === "unrecognized_keys") {
    const key = issue.keys[0]!;
    return invalidRequest(`Unknown parameter: ${key}`, key, "unknown_parameter");
  }
  const param = issue.path.join(".") || null;
  return invalidRequest(
    param === null ? `Invalid body: ${issue.message}` : `Invalid ${param}: ${issue.message}`,
    param,
    "invalid_value",
  );
}

function byteLength(text: string): number {
  return new TextEncoder().encode(text).length;
}

function randomSeed(): number {
  return crypto.getRandomValues(new Uint32Array(1))[0]!;
}
