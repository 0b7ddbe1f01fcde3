/**
 * Counts the bytes of buffers and lists as they are made, and refuses to make more than a limit. It puts
 * itself in the place of the global constructors, because no runtime says how much a call allocated.
 */

const TYPED_ARRAYS = [
  "Int8Array",
  "Uint8Array",
  "Uint8ClampedArray",
  "Int16Array",
  "Uint16Array",
  "Int32Array",
  "Uint32Array",
  "Float32Array",
  "Float64Array",
  "BigInt64Array",
  "BigUint64Array",
] as const;
const BUFFERS = ["ArrayBuffer", "SharedArrayBuffer"] as const;
/** Bytes of an item of a list. */
const ITEM_BYTES = 8;

// deno-lint-ignore no-explicit-any -- constructors of any arguments
type Constructor = new (...args: any[]) => object;

const globals = globalThis as unknown as Record<string, Constructor>;
const originals: Record<string, Constructor> = {};
const arrayFrom = Array.from;
let isInstalled = false;
let remaining = Infinity;

/** More was asked for than the input can justify. */
export class AllocationError extends Error {
  override readonly name = "AllocationError";
}

/** Runs an action that may make at most `limit` bytes, all that it makes counted together. */
export async function withAllocationLimit<Result>(
  limit: number,
  action: () => Result,
): Promise<Awaited<Result>> {
  install();
  remaining = limit;
  try {
    return await action();
  } finally {
    remaining = Infinity;
  }
}

/** Puts the runtime's own constructors back. */
export function restoreConstructors(): void {
  Object.assign(globals, originals);
  Array.from = arrayFrom;
  isInstalled = false;
}

/** Once and for many runs: constructors that come and go would keep the code from being compiled. */
function install(): void {
  if (isInstalled) return;
  isInstalled = true;
  for (const name of TYPED_ARRAYS) replace(name, viewBytes(globalThis[name].BYTES_PER_ELEMENT));
  for (const name of BUFFERS) replace(name, Number);
  Array.from = function (this: unknown, source: { length?: unknown }, ...rest: unknown[]) {
    if (typeof source?.length === "number") count(source.length * ITEM_BYTES);
    return Reflect.apply(arrayFrom, this, [source, ...rest]);
  } as typeof Array.from;
}

function count(bytes: number): void {
  if (!(bytes > 0)) return;
  if (bytes > remaining) throw new AllocationError(`${bytes} bytes asked, ${remaining} left`);
  remaining -= bytes;
}

/** What `new View(argument)` allocates: nothing for a view of a buffer, a copy for a list. */
function viewBytes(itemBytes: number): (argument: unknown) => number {
  return (argument) => {
    if (typeof argument === "number") return argument * itemBytes;
    const length = (argument as { length?: unknown } | undefined)?.length;
    return typeof length === "number" ? length * itemBytes : 0;
  };
}

function replace(name: string, bytesOf: (argument: unknown) => number): void {
  const original = globals[name];
  originals[name] = original;
  const counting = function (first: unknown, second: unknown, third: unknown): object {
    count(bytesOf(first));
    return new original(first, second, third);
  };
  // Everything else (`instanceof`, `from`, `BYTES_PER_ELEMENT`) is the original's.
  counting.prototype = original.prototype;
  Object.setPrototypeOf(counting, original);
  globals[name] = counting as unknown as Constructor;
}
