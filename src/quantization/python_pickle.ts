/**
 * Writing Python's pickle format (protocol 2), for the files that Python libraries keep beside weights:
 * plain values, references to names of a module, and calls of them, as torch.Size((2, 3)). There is no reader,
 * because reading a pickle runs what it says.
 */

import { HalftoneError } from "../errors.ts";

/** What can be written: null is None, arrays are lists, maps and plain objects are dicts, integers are ints. */
export type PickleValue =
  | null
  | boolean
  | number
  | string
  | PythonFloat
  | PythonTuple
  | PythonGlobal
  | PythonCall
  | readonly PickleValue[]
  | ReadonlyMap<string | number, PickleValue>
  | { readonly [key: string]: PickleValue };

/** A float, which Python tells from an int of the same value. */
export class PythonFloat {
  /** Takes the value. */
  constructor(readonly value: number) {}
}

/** A tuple. */
export class PythonTuple {
  /** Takes its items. */
  constructor(readonly items: readonly PickleValue[]) {}
}

/** A name of a module: a class or a constant such as torch.bfloat16. */
export class PythonGlobal {
  /** Takes dotted names. */
  constructor(readonly module: string, readonly name: string) {}
}

/** A call of such a name. */
export class PythonCall {
  /** Takes the callable and its arguments. */
  constructor(readonly callable: PythonGlobal, readonly args: PythonTuple) {}
}

// The instructions of pickletools' list that are used here.
const MARK = 0x28, STOP = 0x2e, NONE = 0x4e, REDUCE = 0x52, GLOBAL = 0x63, BINFLOAT = 0x47;
const BININT = 0x4a, BININT1 = 0x4b, BININT2 = 0x4d, BINUNICODE = 0x58, PROTO = 0x80;
const EMPTY_LIST = 0x5d, APPEND = 0x61, APPENDS = 0x65, NEWTRUE = 0x88, NEWFALSE = 0x89;
const EMPTY_DICT = 0x7d, SETITEM = 0x73, SETITEMS = 0x75, TUPLE = 0x74;
/** Of no item up to three; longer ones need a mark. */
const TUPLES = [0x29, 0x85, 0x86, 0x87];
const BINPUT = 0x71, LONG_BINPUT = 0x72, BINGET = 0x68, LONG_BINGET = 0x6a;

/** The pickle of a value, as short as pickletools.optimize makes it. Throws `invalid_argument` for a number or a name that it has no place for. */
export function pickle(value: PickleValue): Uint8Array {
  const counter = new PickleWriter(new Set());
  counter.write(value);
  const writer = new PickleWriter(counter.repeated);
  writer.write(value);
  return writer.finish();
}

class PickleWriter {
  readonly #bytes: number[] = [PROTO, 2];
  readonly #seen = new Set<string>();
  /** The numbers of what was written once; later places refer to them. */
  readonly #memo = new Map<string, number>();
  /** Strings and names that came more than once. */
  readonly repeated = new Set<string>();

  /** `numbered` are those known to come more than once. */
  constructor(readonly numbered: ReadonlySet<string>) {}

  finish(): Uint8Array {
    return Uint8Array.from([...this.#bytes, STOP]);
  }

  write(value: PickleValue): void {
    if (value === null) this.#bytes.push(NONE);
    else if (typeof value === "boolean") this.#bytes.push(value ? NEWTRUE : NEWFALSE);
    else if (typeof value === "number") this.#int(value);
    else if (typeof value === "string") this.#string(value);
    else if (value instanceof PythonFloat) this.#float(value.value);
    else if (value instanceof PythonTuple) this.#tuple(value.items);
    else if (value instanceof PythonGlobal) this.#global(value);
    else if (value instanceof PythonCall) this.#call(value);
    else if (Array.isArray(value)) this.#list(value);
    else this.#dict(value instanceof Map ? value : new Map(Object.entries(value)));
  }

  #int(value: number): void {
    if (!Number.isInteger(value)) throw notPicklable(value, "an integer of 32 bits");
    if (value >= 0 && value < 2 ** 8) this.#bytes.push(BININT1, value);
    else if (value >= 0 && value < 2 ** 16) this.#bytes.push(BININT2, value & 255, value >> 8);
    else if (value === (value | 0)) this.#bytes.push(BININT, ...uint32(value));
    else throw notPicklable(value, "an integer of 32 bits");
  }

  #float(value: number): void {
    const bytes = new Uint8Array(8);
    new DataView(bytes.buffer).setFloat64(0, value);
    this.#bytes.push(BINFLOAT, ...bytes);
  }

  #string(text: string): void {
    this.#once(`string ${text}`, () => {
      const bytes = new TextEncoder().encode(text);
      this.#bytes.push(BINUNICODE, ...uint32(bytes.length), ...bytes);
    });
  }

  #global({ module, name }: PythonGlobal): void {
    for (const part of [module, name]) {
      if (!/^[A-Za-z_][\w.]*$/.test(part)) throw notPicklable(part, "a dotted name");
    }
    this.#once(`global ${module} ${name}`, () => {
      this.#bytes.push(GLOBAL, ...new TextEncoder().encode(`${module}\n${name}\n`));
    });
  }

  #call({ callable, args }: PythonCall): void {
    this.#global(callable);
    this.#tuple(args.items);
    this.#bytes.push(REDUCE);
  }

  #tuple(items: readonly PickleValue[]): void {
    const short = TUPLES[items.length];
    if (short === undefined) this.#bytes.push(MARK);
    for (const item of items) this.write(item);
    this.#bytes.push(short ?? TUPLE);
  }

  #list(items: readonly PickleValue[]): void {
    this.#bytes.push(EMPTY_LIST);
    this.#fill(items.map((item) => [item]), APPEND, APPENDS);
  }

  #dict(entries: ReadonlyMap<string | number, PickleValue>): void {
    this.#bytes.push(EMPTY_DICT);
    this.#fill([...entries], SETITEM, SETITEMS);
  }

  /** Puts entries, each of one value or two, into what was made before. */
  #fill(entries: readonly (readonly PickleValue[])[], one: number, many: number): void {
    if (entries.length === 0) return;
    if (entries.length > 1) this.#bytes.push(MARK);
    for (const value of entries.flat(1) as PickleValue[]) this.write(value);
    this.#bytes.push(entries.length > 1 ? many : one);
  }

  #once(key: string, write: () => void): void {
    const known = this.#memo.get(key);
    if (known !== undefined) return this.#indexed(BINGET, LONG_BINGET, known);
    if (this.#seen.has(key)) this.repeated.add(key);
    this.#seen.add(key);
    write();
    if (!this.numbered.has(key)) return;
    this.#indexed(BINPUT, LONG_BINPUT, this.#memo.size);
    this.#memo.set(key, this.#memo.size);
  }

  #indexed(short: number, long: number, index: number): void {
    if (index < 256) this.#bytes.push(short, index);
    else this.#bytes.push(long, ...uint32(index));
  }
}

/** Four bytes, the lowest first. */
function uint32(value: number): number[] {
  return [0, 8, 16, 24].map((shift) => value >>> shift & 255);
}

function notPicklable(found: unknown, expected: string): HalftoneError {
  return new HalftoneError("invalid_argument", "Cannot pickle this", { found, expected });
}
