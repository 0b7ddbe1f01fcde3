/** GET /healthz (the process lives) and GET /readyz (it takes requests). */

import { Hono } from "hono";
import type { ServerState } from "../server_state.ts";

/** The health routes. */
export function healthRoutes(state: ServerState): Hono {
  return new Hono()
    .get("/healthz", (context) => context.json({ status: "ok" }))
    .get("/readyz", (context) => {
      const { phase } = state;
      return context.json({ status: phase }, phase === "ready" ? 200 : 503);
    });
}
