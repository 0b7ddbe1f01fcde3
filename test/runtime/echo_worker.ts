/** Answers each message with itself; throws when told to. */
const scope = globalThis as unknown as {
  onmessage: ((event: MessageEvent) => void) | null;
  postMessage(message: unknown): void;
};

scope.onmessage = (event: MessageEvent) => {
  if (event.data === "throw") throw new Error("as told");
  scope.postMessage({ echo: event.data });
};
