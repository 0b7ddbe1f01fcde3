/** A linear layer in float32, one thread, beside the libraries that have one in WebAssembly. */

import { openJaxMatmul } from "../peers/jax_js.ts";
import { onnxModel } from "../peers/onnx_model.ts";
import { openOnnxRuntimeWeb } from "../peers/onnxruntime_web.ts";
import { openTfjsMatmul } from "../peers/tfjs_wasm.ts";
import { linearWork, openLinear } from "../one_program.ts";
import { compare } from "../suite/measure.ts";
import type { Section } from "../suite/section.ts";
import { HostTensor } from "../../src/tensor/host_tensor.ts";
import { randomFloats, weightCase } from "../weight_cases.ts";

const SHAPE = { m: 512, k: 3072, n: 3072 };
const THREADS = 1;

/** The section. */
export const linearFloat32: Section = {
  about: "float32 linear 512 x 3072 x 3072, one thread",
  perRuntime: true,
  run: async ({ rounds }) => ({
    comparisons: [
      await compare(
        {
          name: "float32 linear",
          threads: THREADS,
          work: linearWork(SHAPE),
          rounds,
          subjects: ["halftone"],
          sameWork: true,
        },
        contenders(),
      ),
    ],
  }),
};

function contenders() {
  const { m, k, n } = SHAPE;
  const x = randomFloats(m * k);
  const w = randomFloats(n * k);
  const stored = { kind: "dense", tensor: HostTensor.fromFloat32(w, [n, k]) } as const;
  const columns = transposed(w, n, k);
  const options = { threads: THREADS, stored, x };
  const ours = () => openLinear("halftone", SHAPE, weightCase("float32", k), options);
  return [
    { name: "halftone", open: ours },
    { name: "jax-js", open: () => openJaxMatmul(x, columns, SHAPE, THREADS) },
    {
      name: "onnxruntime-web",
      open: () => openOnnxRuntimeWeb(matmulModel(columns), x, [m, k], THREADS),
    },
    { name: "tfjs-wasm", open: () => openTfjsMatmul(x, columns, SHAPE, THREADS) },
  ];
}

/** [rows, columns] -> [columns, rows]. */
function transposed(
  values: Float32Array,
  rows: number,
  columns: number,
): Float32Array<ArrayBuffer> {
  const result = new Float32Array(values.length);
  for (let row = 0; row < rows; row++) {
    for (let column = 0; column < columns; column++) {
      result[column * rows + row] = values[row * columns + column]!;
    }
  }
  return result;
}

function matmulModel(w: Float32Array<ArrayBuffer>): Uint8Array {
  const { k, n } = SHAPE;
  return onnxModel(
    [{ op: "MatMul", inputs: ["x", "w"], outputs: ["y"] }],
    [{ name: "w", dtype: "float32", shape: [k, n], bytes: new Uint8Array(w.buffer) }],
    SHAPE,
  );
}
