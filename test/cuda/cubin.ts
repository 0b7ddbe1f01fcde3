/** Reads what a cubin (ELF) says about its kernels. */

/** A kernel as it was built. */
export interface BuiltKernel {
  readonly registers: number;
  /** Bytes of a thread's stack: arrays that did not fit registers, and what was spilled. */
  readonly stackBytes: number;
  readonly parameterBytes: number;
}

/** A built module. */
export interface Cubin {
  /** Compute capability, such as 90. */
  readonly capability: number;
  readonly kernels: ReadonlyMap<string, BuiltKernel>;
}

interface Section {
  readonly name: string;
  readonly offset: number;
  readonly size: number;
  readonly link: number;
}

/** Attributes of .nv.info: a byte of format, a byte of number, two of value or size. */
const ATTRIBUTE = { frameBytes: 0x11, parameterBytes: 0x19, registers: 0x2f } as const;
const FORMAT_SIZED = 4;
const SYMBOL_BYTES = 24;
const FUNCTION = 2;
const GLOBAL = 1;

/** Reads a cubin; throws when it is none. */
export function readCubin(bytes: Uint8Array): Cubin {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (view.getUint32(0) !== 0x7f454c46) throw new Error("not an ELF file");
  const sections = readSections(view);
  const symbols = readSymbols(view, sections);
  const info = attributesOf(view, sections.find(({ name }) => name === ".nv.info")!);
  const valueOf = (attribute: number, symbol: number): number =>
    info.find(({ number, words }) => number === attribute && words[0] === symbol)!.words[1]!;
  const kernels = symbols.flatMap(({ name, isKernel }, index) => {
    if (!isKernel) return [];
    const own = attributesOf(
      view,
      sections.find((section) => section.name === `.nv.info.${name}`)!,
    );
    return [
      [name, {
        registers: valueOf(ATTRIBUTE.registers, index),
        stackBytes: valueOf(ATTRIBUTE.frameBytes, index),
        parameterBytes: own.find(({ number }) => number === ATTRIBUTE.parameterBytes)!.words[0]!,
      }] as const,
    ];
  });
  return { capability: capabilityOf(view), kernels: new Map(kernels) };
}

/** The lowest byte of the flags; from sm_100 on the one above it. */
function capabilityOf(view: DataView): number {
  const flags = view.getUint32(0x30, true);
  return flags >>> 24 >= 6 ? flags >>> 8 & 0xff : flags & 0xff;
}

function readSections(view: DataView): Section[] {
  const start = Number(view.getBigUint64(0x28, true));
  const [bytes, count, names] = [0x3a, 0x3c, 0x3e].map((at) => view.getUint16(at, true));
  const long = (at: number) => Number(view.getBigUint64(at, true));
  const nameTable = long(start + names! * bytes! + 0x18);
  return Array.from({ length: count! }, (_, index) => {
    const at = start + index * bytes!;
    return {
      name: textAt(view, nameTable + view.getUint32(at, true)),
      offset: long(at + 0x18),
      size: long(at + 0x20),
      link: view.getUint32(at + 0x28, true),
    };
  });
}

function readSymbols(view: DataView, sections: Section[]) {
  const table = sections.find(({ name }) => name === ".symtab")!;
  const names = sections[table.link]!;
  return Array.from({ length: table.size / SYMBOL_BYTES }, (_, index) => {
    const at = table.offset + index * SYMBOL_BYTES;
    const name = textAt(view, names.offset + view.getUint32(at, true));
    return { name, isKernel: view.getUint8(at + 4) === (GLOBAL << 4 | FUNCTION) };
  });
}

function attributesOf(view: DataView, { offset, size }: Section) {
  const found: { number: number; words: number[] }[] = [];
  for (let at = offset; at < offset + size;) {
    const number = view.getUint8(at + 1), value = view.getUint16(at + 2, true);
    const isSized = view.getUint8(at) === FORMAT_SIZED;
    const words = isSized
      ? Array.from({ length: value / 4 }, (_, word) => view.getUint32(at + 4 + 4 * word, true))
      : [value];
    found.push({ number, words });
    at += 4 + (isSized ? value : 0);
  }
  return found;
}

function textAt(view: DataView, start: number): string {
  let end = start;
  while (view.getUint8(end) !== 0) end++;
  return new TextDecoder().decode(
    new Uint8Array(view.buffer, view.byteOffset + start, end - start),
  );
}
