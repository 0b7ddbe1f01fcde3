/** Errors as OpenAI's clients read them: `{"error": {message, type, param, code}}`. */

import { type ErrorCode, HalftoneError } from "../src/errors.ts";

// Nobody reads this answer; it is for the log. The status is the one nginx uses.
const CLIENT_CLOSED = 499;
const CLIENT_CLOSED_MESSAGE = "The client closed the request";

/** The body of an error. */
export interface ApiErrorBody {
  readonly error: {
    readonly message: string;
    readonly type: string;
    readonly param: string | null;
    readonly code: string | null;
  };
}

/** What an `ApiError` is made of beside its message. */
export interface ApiErrorOptions {
  readonly status: number;
  readonly type?: string;
  readonly param?: string | null;
  readonly code?: string | null;
  readonly headers?: Readonly<Record<string, string>>;
}

/** A failure that a client may see. */
export class ApiError extends Error {
  override readonly name: string = "ApiError";
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: ApiErrorBody;

  constructor(message: string, options: ApiErrorOptions) {
    super(message);
    this.status = options.status;
    this.headers = options.headers ?? {};
    const type = options.type ?? typeOf(options.status);
    this.body = {
      error: { message, type, param: options.param ?? null, code: options.code ?? null },
    };
  }

  /** The response that says it. */
  toResponse(): Response {
    return Response.json(this.body, { status: this.status, headers: this.headers });
  }
}

/** A fault of one field of the request. */
export function invalidRequest(message: string, param: string | null, code: string): ApiError {
  return new ApiError(message, { status: 400, param, code });
}

/**
 * Any failure as one a client may see. Only faults of the request keep their text: what happens
 * inside the server goes to its log, not into an answer.
 */
export function asApiError(error: unknown): ApiError {
  if (error instanceof ApiError) return error;
  if (error instanceof DOMException && error.name === "AbortError") return clientClosed();
  if (!(error instanceof HalftoneError)) return internalError();
  const known = PUBLIC_CODES[error.code];
  if (known === undefined) return internalError();
  const message = known.showsMessage ? error.message : known.message;
  return new ApiError(message, { status: known.status, code: error.code });
}

const PUBLIC_CODES: Partial<
  Record<ErrorCode, { status: number; message: string; showsMessage?: boolean }>
> = {
  invalid_argument: { status: 400, message: "Invalid request", showsMessage: true },
  unsupported: { status: 400, message: "Unsupported request", showsMessage: true },
  out_of_memory: { status: 503, message: "Not enough memory for a picture of this size" },
  aborted: { status: CLIENT_CLOSED, message: CLIENT_CLOSED_MESSAGE },
};

function clientClosed(): ApiError {
  return new ApiError(CLIENT_CLOSED_MESSAGE, { status: CLIENT_CLOSED, code: "aborted" });
}

function internalError(): ApiError {
  return new ApiError("The server failed to make the picture", {
    status: 500,
    code: "internal_error",
  });
}

function typeOf(status: number): string {
  if (status === 401 || status === 403) return "authentication_error";
  if (status === 429) return "rate_limit_error";
  return status >= 500 ? "server_error" : "invalid_request_error";
}
