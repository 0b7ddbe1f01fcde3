/**
 * Pictures from text with quantized Flux models, on Deno, Bun and in the browser.
 *
 * @module
 */

export * from "./src/errors.ts";
