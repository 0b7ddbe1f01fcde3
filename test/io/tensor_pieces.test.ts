/** Tensors that pass through a small memory piece by piece, against the same read as a whole. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { type Checkpoint, checkpointFromSources } from "../../src/io/checkpoint.ts";
import { viewCheckpoint } from "../../src/io/checkpoint_view.ts";
import { serializeSafetensors } from "../../src/io/safetensors_writer.ts";
import { kernelsOver } from "../../src/quantization/wasm_kernels.ts";
import { type ByteSource, memorySource } from "../../src/runtime/byte_source.ts";
import type { DType } from "../../src/tensor/dtype.ts";
import { elementBits, firstNonFinite } from "../../src/tensor/finite.ts";
import { HostTensor } from "../../src/tensor/host_tensor.ts";
import { PIECE_BYTES, PieceMemory, withPieceMemory } from "../../src/tensor/piece_memory.ts";
import { rejects } from "./support.ts";

const ROWS = 5;
const COLUMNS = PIECE_BYTES / 4 + 3;
/** Finite numbers in more than two pieces; no row ends with a piece. */
const LARGE = new HostTensor("bfloat16", [ROWS, COLUMNS], pattern(2 * ROWS * COLUMNS));
const SMALL = HostTensor.fromFloat32(Float32Array.of(1, 2, 3), [3]);

function pattern(length: number): Uint8Array {
  return Uint8Array.from({ length }, (_, i) => i % 2 === 0 ? i / 2 % 251 : 0x3f);
}

async function open(
  tensors: Record<string, HostTensor>,
  wrap: (source: ByteSource) => ByteSource = (source) => source,
): Promise<Checkpoint> {
  const file = serializeSafetensors(tensors);
  return await checkpointFromSources("x.safetensors", [wrap(memorySource(file, "x.safetensors"))]);
}

/** All pieces joined, which must come in order. */
async function joined(
  checkpoint: Checkpoint,
  name: string,
  options?: Parameters<Checkpoint["readPieces"]>[3],
): Promise<Uint8Array> {
  const all: number[][] = [];
  let end = 0;
  await withPieceMemory((memory) =>
    checkpoint.readPieces(name, memory, ({ bytes, start }) => {
      assert.equal(start, end);
      assert.ok(bytes.length <= PIECE_BYTES);
      end += bytes.length;
      all.push([...bytes]);
    }, options)
  );
  return Uint8Array.from(all.flat());
}

test("pieces make the whole tensor, of any size", async () => {
  const empty = HostTensor.zeros("int8", [0]);
  const checkpoint = await open({ large: LARGE, small: SMALL, empty });
  for (const name of ["large", "small", "empty"]) {
    assert.deepEqual(await joined(checkpoint, name), (await checkpoint.read(name)).bytes, name);
  }
});

test("rows pass alone, and rows that a tensor lacks are refused", async () => {
  const checkpoint = await open({ large: LARGE });
  for (const [start, end] of [[0, 1], [1, 4], [4, 5]] as const) {
    const expected = (await checkpoint.readRows("large", start, end)).bytes;
    assert.deepEqual(await joined(checkpoint, "large", { rows: [start, end] }), expected);
  }
  await rejects(() => joined(checkpoint, "large", { rows: [4, 6] }), "invalid_argument");
});

test("a view passes the parts of a tensor one after another", async () => {
  const view = viewCheckpoint(await open({ large: LARGE }), [
    {
      name: "turned",
      parts: [{ source: "large", start: 3, end: 5 }, { source: "large", start: 0, end: 2 }],
    },
    { name: "whole", parts: [{ source: "large", start: 0, end: ROWS }] },
  ]);
  for (const name of ["turned", "whole", "large"]) {
    if (view.entries.has(name)) {
      assert.deepEqual(await joined(view, name), (await view.read(name)).bytes, name);
    }
  }
  assert.deepEqual(
    await joined(view, "turned", { rows: [1, 3] }),
    (await view.readRows("turned", 1, 3)).bytes,
  );
  await rejects(() => joined(view, "absent"), "missing_tensor");
});

test("NaN is refused as by a whole read, wherever it is, before anyone sees its piece", async () => {
  const count = LARGE.size;
  for (const place of [0, 1, PIECE_BYTES / 2 - 1, PIECE_BYTES / 2, PIECE_BYTES + 7, count - 1]) {
    const bytes = LARGE.bytes.slice();
    new Uint16Array(bytes.buffer)[place] = 0x7fc0;
    const checkpoint = await open({ bad: new HostTensor("bfloat16", LARGE.shape, bytes) });
    const whole = await rejects(() => checkpoint.read("bad"), "non_finite_weight");
    let seen = 0;
    const pass = () =>
      withPieceMemory((memory) => {
        return checkpoint.readPieces("bad", memory, ({ bytes }) => seen += bytes.length);
      });
    const error = await rejects(pass, "non_finite_weight");
    assert.deepEqual(error.detail, whole.detail);
    assert.equal(error.message, whole.message);
    assert.ok(2 * place >= seen, `${place}`);
    assert.deepEqual(await joined(checkpoint, "bad", { packed: true }), bytes);
  }
});

test("the next piece is read while one is worked on, and none when it fails", async () => {
  let reads = 0, underWay = 0;
  const checkpoint = await open({ large: LARGE }, (source) => ({
    ...source,
    read: async (...range) => {
      reads++;
      underWay++;
      await new Promise((resolve) => setTimeout(resolve, 1));
      underWay--;
      return await source.read(...range);
    },
  }));
  const header = reads;
  const fails = () =>
    withPieceMemory((memory) =>
      checkpoint.readPieces("large", memory, () => {
        assert.equal(reads - header, 2);
        throw new RangeError("no room");
      })
    );
  await assert.rejects(fails, RangeError);
  assert.equal(underWay, 0);
});

test("a file that ends early, an unknown tensor and a closed checkpoint are refused", async () => {
  const checkpoint = await open({ large: LARGE }, (source) => ({
    ...source,
    read: (offset, length, into) =>
      source.read(offset > PIECE_BYTES ? source.size : offset, length, into),
  }));
  await rejects(() => joined(checkpoint, "large"), "missing_file");
  await rejects(() => joined(checkpoint, "absent"), "missing_tensor");
  await checkpoint.close();
  await rejects(() => joined(checkpoint, "large"), "closed");
});

test("of all codes, kernels find exactly those that are NaN or infinite, at any place", async () => {
  const memory = new PieceMemory();
  const kernels = await kernelsOver(memory);
  const isFinite = (bytes: Uint8Array, dtype: DType) => {
    const { special, lowest, sign } = elementBits(dtype)!;
    const piece = memory.input(0, bytes.length);
    piece.set(bytes);
    return kernels.is_finite(piece.byteOffset, piece.length, special, lowest, sign) === 1;
  };
  for (const dtype of ["float16", "bfloat16", "float8_e4m3fn", "float8_e5m2"] as const) {
    const { size } = elementBits(dtype)!;
    for (let code = 0; code < 256 ** size; code++) {
      // Between the largest finite codes, to show that no carry crosses over.
      const largest = { float16: 0x7bff, bfloat16: 0x7f7f, float8_e4m3fn: 0x7e, float8_e5m2: 0x7b };
      const words = Array.from({ length: 3 }, () => largest[dtype]);
      words[1] = code;
      const bytes = new Uint8Array((size === 2 ? Uint16Array : Uint8Array).from(words).buffer);
      const expected = firstNonFinite(new HostTensor(dtype, [3], bytes)) < 0;
      if (isFinite(bytes, dtype) !== expected) assert.fail(`${dtype} code ${code}`);
    }
  }
  for (let length = 1; length < 50; length++) {
    for (let place = 0; place < length; place++) {
      const values = new Float32Array(length).fill(-3e38);
      assert.ok(isFinite(new Uint8Array(values.buffer), "float32"));
      values[place] = place % 2 ? NaN : -Infinity;
      assert.ok(!isFinite(new Uint8Array(values.buffer), "float32"), `${place} of ${length}`);
    }
  }
});
