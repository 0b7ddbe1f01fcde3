/** GET /v1/models and /v1/models/{model}. */

import { Hono } from "hono";
import { ApiError } from "../api_error.ts";
import type { ServerState } from "../server_state.ts";

/** A model as OpenAI's clients read it. */
interface ModelObject {
  readonly id: string;
  readonly object: "model";
  readonly created: number;
  readonly owned_by: string;
}

/** The model routes. */
export function modelRoutes(state: ServerState): Hono {
  const started = Math.floor(Date.now() / 1000);
  const describe = (id: string): ModelObject => ({
    id,
    object: "model",
    created: started,
    owned_by: "halftone",
  });
  return new Hono()
    .get(
      "/v1/models",
      (context) => context.json({ object: "list", data: [describe(state.maker.model)] }),
    )
    .get("/v1/models/:model{.+}", (context) => {
      requireModel(state, context.req.param("model"));
      return context.json(describe(state.maker.model));
    });
}

/** Throws an `ApiError` (404) unless the model is the one that is loaded. */
export function requireModel(state: ServerState, model: string | undefined): void {
  const loaded = state.maker.model;
  if (model === undefined || model === loaded) return;
  throw new ApiError(
    `The model ${JSON.stringify(model)} is not loaded; this server draws with "${loaded}"`,
    { status: 404, param: "model", code: "model_not_found" },
  );
}
