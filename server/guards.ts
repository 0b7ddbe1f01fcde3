/** What stands before the routes: who may speak to a local server, and in which form. */

import { bearerAuth } from "hono/bearer-auth";
import { bodyLimit } from "hono/body-limit";
import type { MiddlewareHandler } from "hono";
import { ApiError } from "./api_error.ts";

const LOOPBACK_NAMES = ["localhost", "127.0.0.1", "[::1]", "::1"];

/** Whether only this machine can reach an address. */
export function isLoopback(hostname: string): boolean {
  return LOOPBACK_NAMES.includes(hostname) || /^127\.\d+\.\d+\.\d+$/.test(hostname);
}

/**
 * Refuses requests whose Host is not one of ours (a web page whose name was pointed at this
 * machine) and those that another site's page sends (a foreign or null Origin).
 */
export function sameSiteOnly(allowedHosts: "loopback" | "any"): MiddlewareHandler {
  return async (context, next) => {
    const host = context.req.header("Host") ?? new URL(context.req.url).host;
    const origin = context.req.header("Origin");
    if (allowedHosts === "loopback" && !isLoopback(hostnameOf(host))) {
      throw forbidden(`The Host header ${JSON.stringify(host)} is not a name of this machine`);
    }
    if (origin !== undefined && !isOwnOrigin(origin, host)) {
      throw forbidden(`Requests from the origin ${JSON.stringify(origin)} are refused`);
    }
    await next();
  };
}

/** Demands the bearer token. */
export function tokenRequired(token: string): MiddlewareHandler {
  const refused = new ApiError("A valid token is required: Authorization: Bearer TOKEN", {
    status: 401,
    code: "invalid_api_key",
  });
  return bearerAuth({
    token,
    noAuthenticationHeader: { message: refused.body },
    invalidAuthenticationHeader: { message: refused.body },
    invalidToken: { message: refused.body },
  });
}

/** Refuses bodies over the limit, and bodies that are not JSON. */
export function jsonBody(maxBytes: number): MiddlewareHandler {
  const limit = bodyLimit({
    maxSize: maxBytes,
    onError: () => {
      throw new ApiError(`The body is over ${maxBytes} bytes`, {
        status: 413,
        code: "body_too_large",
      });
    },
  });
  return (context, next) => {
    const type = context.req.header("Content-Type") ?? "";
    if (!/^application\/json\s*(;|$)/i.test(type)) {
      throw new ApiError("The body must be application/json", {
        status: 415,
        code: "unsupported_media_type",
      });
    }
    return limit(context, next);
  };
}

function hostnameOf(host: string): string {
  return host.startsWith("[") ? host.slice(0, host.indexOf("]") + 1) : host.split(":")[0]!;
}

function isOwnOrigin(origin: string, host: string): boolean {
  return origin === `http://${host}` || origin === `https://${host}`;
}

function forbidden(message: string): ApiError {
  return new ApiError(message, { status: 403, code: "forbidden" });
}
