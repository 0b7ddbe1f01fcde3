/** GGUF files put together field by field, so that each field can be wrong. */

/** Fields in sequence. */
export type Field = Uint8Array;

export const bytes = (...values: number[]): Field => Uint8Array.from(values);
export const u8 = (value: number): Field => bytes(value);
export const u32 = (value: number): Field => number(4, (view) => view.setUint32(0, value, true));
export const u64 = (value: number | bigint): Field =>
  number(8, (view) => view.setBigUint64(0, BigInt(value), true));
export const f32 = (value: number): Field => number(4, (view) => view.setFloat32(0, value, true));
export const text = (value: string, length?: number | bigint): Field => {
  const utf8 = new TextEncoder().encode(value);
  return join(u64(length ?? utf8.length), utf8);
};

function number(size: number, write: (view: DataView) => void): Field {
  const result = new Uint8Array(size);
  write(new DataView(result.buffer));
  return result;
}

export function join(...fields: readonly Field[]): Field {
  const result = new Uint8Array(fields.reduce((sum, field) => sum + field.length, 0));
  let at = 0;
  for (const field of fields) {
    result.set(field, at);
    at += field.length;
  }
  return result;
}

/** Numbers of the value types. */
export const TYPES = {
  uint8: 0,
  int8: 1,
  uint16: 2,
  int16: 3,
  uint32: 4,
  int32: 5,
  float32: 6,
  bool: 7,
  string: 8,
  array: 9,
  uint64: 10,
  int64: 11,
  float64: 12,
} as const;

export const pair = (key: string, type: number, value: Field): Field =>
  join(text(key), u32(type), value);

export interface InfoParts {
  readonly name?: Field;
  readonly rank?: number;
  readonly dimensions?: readonly (number | bigint)[];
  readonly type?: number;
  readonly offset?: number | bigint;
}

/** A tensor info; F32 [4] at 0 unless told otherwise. */
export function info(parts: InfoParts = {}): Field {
  const dimensions = parts.dimensions ?? [4];
  return join(
    parts.name ?? text("a"),
    u32(parts.rank ?? dimensions.length),
    ...dimensions.map(u64),
    u32(parts.type ?? 0),
    u64(parts.offset ?? 0),
  );
}

export interface FileParts {
  readonly magic?: Field;
  readonly version?: number;
  readonly tensorCount?: number | bigint;
  readonly pairCount?: number | bigint;
  readonly pairs?: readonly Field[];
  readonly infos?: readonly Field[];
  /** Bytes of data after padding. */
  readonly data?: number;
  readonly alignment?: number;
}

export const ARCHITECTURE = pair("general.architecture", TYPES.string, text("flux"));

/** A good file (one F32 [4]) except for the parts given. */
export function ggufFile(parts: FileParts = {}): Uint8Array {
  const pairs = parts.pairs ?? [ARCHITECTURE];
  const infos = parts.infos ?? [info()];
  const head = join(
    parts.magic ?? new TextEncoder().encode("GGUF"),
    u32(parts.version ?? 3),
    u64(parts.tensorCount ?? infos.length),
    u64(parts.pairCount ?? pairs.length),
    ...pairs,
    ...infos,
  );
  const alignment = parts.alignment ?? 32;
  const padding = Math.ceil(head.length / alignment) * alignment - head.length;
  return join(head, new Uint8Array(padding + (parts.data ?? 32)));
}
