/** NVIDIA's own cuDNN where it is installed: what of it works without a GPU, and the stand-in beside it. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { CudnnCalls } from "../../src/backends/cuda/cudnn_calls.ts";
import { CudnnDescriptors } from "../../src/backends/cuda/cudnn_descriptors.ts";
import { describeOperation } from "../../src/backends/cuda/cudnn_operations.ts";
import { Cudnn } from "../../src/backends/cuda/cudnn.ts";
import {
  CUDNN_ATTRIBUTE,
  CUDNN_DESCRIPTOR,
  CUDNN_TYPE,
} from "../../src/backends/cuda/cudnn_symbols.ts";
import { HalftoneError } from "../../src/errors.ts";
import { attentionProblem, convolutionProblem, UNTIMED } from "./dnn_problems.ts";
import { openGenuineCudnn } from "./genuine_cudnn.ts";
import { openStandIn } from "./stand_in.ts";

const genuine = await openGenuineCudnn();
const standIn = openStandIn("cudnn_library");
const subjects = {
  "NVIDIA's cuDNN": genuine,
  "the stand-in for cuDNN": typeof standIn === "string" ? standIn : new CudnnCalls(standIn.library),
};

const CONVOLUTION = convolutionProblem([9, 8], [16, 24], { stride: 2, padding: [1, 0, 1, 1] });
const ATTENTION = attentionProblem({ heads: 2, size: 64, queries: 10, keys: 12 }, "float16");

/** Descriptors by their types, in the order in which they were made. */
class RecordedDescriptors extends CudnnDescriptors {
  readonly #made = new Map<number, number[]>();

  override make(type: number): number {
    const made = super.make(type);
    this.#made.set(type, [...this.ofType(type), made]);
    return made;
  }

  ofType(type: number): readonly number[] {
    return this.#made.get(type) ?? [];
  }
}

for (const [name, calls] of Object.entries(subjects)) {
  const skip = typeof calls === "string" ? calls : false;
  if (skip) console.log(`cuda: ${name} is not tried: ${skip}`);
  const register = (what: string, run: (calls: CudnnCalls, made: RecordedDescriptors) => void) =>
    test(`${name} ${what}`, { skip }, () => {
      if (typeof calls === "string") return;
      const descriptors = new RecordedDescriptors(calls, "try it");
      run(calls, descriptors);
      descriptors.free();
    });

  register("says its version and what its statuses mean", (calls) => {
    assert.match(calls.versionText, /^9\.\d+\.\d+$/);
    assert.match(calls.textOf(3000), /^CUDNN_STATUS_NOT_SUPPORTED \(3000\)/);
    const meanings = [0, 1001, 2000, 3000, 3007, 4001, 4003, 4004, 5000].map((status) =>
      calls.meaningOf(status)
    );
    assert.deepEqual(meanings, [
      "success",
      "failed",
      "failed",
      "not supported",
      "not supported",
      "failed",
      "out of memory",
      "out of memory",
      "failed",
    ]);
  });

  register("keeps a convolution as it is meant", (_, descriptors) => {
    describeOperation(descriptors, CONVOLUTION);
    const { convolution } = CUDNN_ATTRIBUTE;
    const tensors = descriptors.ofType(CUDNN_DESCRIPTOR.tensor);
    const found = tensors.map((tensor) => tensorOf(descriptors, tensor));
    assert.deepEqual(found.sort((a, b) => Number(a.id! - b.id!)), [
      { type: 9, id: 1n, dimensions: [1n, 16n, 9n, 8n], strides: [1152n, 1n, 128n, 16n] },
      { type: 9, id: 2n, dimensions: [24n, 16n, 3n, 3n], strides: [144n, 1n, 48n, 16n] },
      { type: 9, id: 3n, dimensions: [1n, 24n, 5n, 4n], strides: [480n, 1n, 96n, 24n] },
    ]);
    const [geometry] = descriptors.ofType(CUDNN_DESCRIPTOR.convolution) as [number];
    const pair = (attribute: number) => integers(descriptors, geometry, attribute, 2);
    assert.deepEqual(
      [
        convolution.strides,
        convolution.prePaddings,
        convolution.postPaddings,
        convolution.dilations,
      ]
        .map(pair),
      [[2n, 2n], [1n, 0n], [1n, 1n], [1n, 1n]],
    );
    assert.deepEqual(integers(descriptors, geometry, convolution.spatialDimensions, 1), [2n]);
    assert.deepEqual(
      member(descriptors, geometry, convolution.computeType, CUDNN_TYPE.dataType),
      0,
    );
  });

  register("keeps attention as it is meant", (_, descriptors) => {
    describeOperation(descriptors, ATTENTION);
    const tensors = descriptors.ofType(CUDNN_DESCRIPTOR.tensor);
    const found = tensors.map((tensor) => tensorOf(descriptors, tensor));
    const rows = (id: bigint, count: bigint) => ({
      type: 2,
      id,
      dimensions: [1n, 2n, count, 64n],
      strides: [count * 128n, 64n, 128n, 1n],
    });
    const one = [1n, 1n, 1n, 1n];
    assert.deepEqual(found, [
      rows(1n, 10n),
      rows(2n, 12n),
      rows(3n, 12n),
      rows(4n, 10n),
      { type: 0, id: 5n, dimensions: one, strides: one },
    ]);
  });

  register("refuses what is of another type, incomplete or does not meet", (_, descriptors) => {
    const { tensor } = CUDNN_ATTRIBUTE;
    const made = descriptors.make(CUDNN_DESCRIPTOR.tensor);
    const refused = (action: () => void, field: string) =>
      assert.throws(action, (error) => {
        assert.ok(error instanceof HalftoneError, String(error));
        assert.equal(error.detail.field, field);
        assert.match(error.message, /CUDNN_STATUS_(BAD_PARAM|NOT_INITIALIZED)/);
        return true;
      });
    const set = "cudnnBackendSetAttribute", finalize = "cudnnBackendFinalize";
    refused(() => descriptors.setFloat(made, tensor.dimensions, 1), set);
    refused(() => descriptors.setIntegers(made, tensor.uniqueId, 1, 2), set);
    refused(() => descriptors.finalize(made), finalize);
    refused(() => integers(descriptors, made, tensor.dimensions, 4), "cudnnBackendGetAttribute");
    const wrong = { ...CONVOLUTION, y: { ...CONVOLUTION.y, height: 6 } };
    refused(() => describeOperation(descriptors, wrong), finalize);
  });
}

const skip = typeof genuine === "string" ? genuine : false;

test("NVIDIA's cuDNN starts, or says why it does not", { skip }, () => {
  if (typeof genuine === "string") return;
  const opened = Cudnn.open([genuine.library], UNTIMED);
  if (typeof opened !== "string") return opened.close();
  assert.match(opened, /Cannot start cuDNN.*CUDNN_STATUS_/);
});

function tensorOf(descriptors: CudnnDescriptors, tensor: number) {
  const { dataType, uniqueId, dimensions, strides } = CUDNN_ATTRIBUTE.tensor;
  return {
    type: member(descriptors, tensor, dataType, CUDNN_TYPE.dataType),
    id: integers(descriptors, tensor, uniqueId, 1)[0],
    dimensions: integers(descriptors, tensor, dimensions, 4),
    strides: integers(descriptors, tensor, strides, 4),
  };
}

function integers(
  descriptors: CudnnDescriptors,
  descriptor: number,
  attribute: number,
  count: number,
): bigint[] {
  const values = new BigInt64Array(count);
  assert.equal(descriptors.get(descriptor, attribute, CUDNN_TYPE.int64, values), count);
  return [...values];
}

function member(
  descriptors: CudnnDescriptors,
  descriptor: number,
  attribute: number,
  type: number,
): number {
  const values = new Int32Array(1);
  assert.equal(descriptors.get(descriptor, attribute, type, values), 1);
  return values[0]!;
}
