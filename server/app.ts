/** The HTTP application: routes over a state, nothing of a network, so tests call it directly. */

import { Hono } from "hono";
import { secureHeaders } from "hono/secure-headers";
import { ApiError, asApiError } from "./api_error.ts";
import { sameSiteOnly, tokenRequired } from "./guards.ts";
import { DEFAULT_LIMITS, type ServerLimits } from "./limits.ts";
import { healthRoutes } from "./routes/health.ts";
import { imageRoutes } from "./routes/images.ts";
import { modelRoutes } from "./routes/models.ts";
import type { ServerState } from "./server_state.ts";

/** How an application is set up. */
export interface AppOptions {
  readonly limits?: ServerLimits;
  /** Demanded of every request to /v1 when given. */
  readonly token?: string;
  /** "loopback": only requests addressed to this machine's own names. */
  readonly allowedHosts?: "loopback" | "any";
  /** Told of every failure inside the server. */
  readonly onError?: (error: unknown) => void;
}

/** The application. */
export function createApp(state: ServerState, options: AppOptions = {}): Hono {
  const app = new Hono();
  app.use(secureHeaders());
  app.use(sameSiteOnly(options.allowedHosts ?? "loopback"));
  if (options.token !== undefined) app.use("/v1/*", tokenRequired(options.token));
  app.route("/", healthRoutes(state));
  app.route("/", modelRoutes(state));
  app.route("/", imageRoutes(state, options.limits ?? DEFAULT_LIMITS));
  app.notFound((context) =>
    new ApiError(`No route for ${context.req.method} ${context.req.path}`, {
      status: 404,
      code: "not_found",
    }).toResponse()
  );
  app.onError((error) => answerTo(error, options.onError));
  return app;
}

function answerTo(error: unknown, onError: AppOptions["onError"]): Response {
  // bearerAuth throws the response it wants.
  if (isResponseError(error)) return error.getResponse();
  const answer = asApiError(error);
  if (answer.status >= 500 && !(error instanceof ApiError)) onError?.(error);
  return answer.toResponse();
}

function isResponseError(error: unknown): error is { getResponse(): Response } {
  return typeof error === "object" && error !== null && "getResponse" in error;
}
