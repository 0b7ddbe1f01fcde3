/** Values of a plan's inputs and outputs, between tensors and the 32-bit words of a buffer. */

import { HalftoneError } from "../errors.ts";
import type { ActivationOperand } from "../plan/plan.ts";
import { HostTensor } from "../tensor/host_tensor.ts";
import { contiguousStrides } from "../tensor/shape.ts";
import { mergeAxes } from "./operand_view.ts";

/** An input or output by name; throws `invalid_argument` for another name. */
export function namedOperand(
  operands: Readonly<Record<string, ActivationOperand>>,
  name: string,
  role: "input" | "output",
): ActivationOperand {
  const operand = Object.hasOwn(operands, name) ? operands[name] : undefined;
  if (operand) return operand;
  throw new HalftoneError("invalid_argument", `Cannot find an ${role} of the plan`, {
    found: name,
    expected: Object.keys(operands).join(", "),
  });
}

/** Writes a tensor into the words of its operand's buffer; throws `invalid_argument` for another size. */
export function writeOperand(
  operand: ActivationOperand,
  tensor: HostTensor,
  words: Int32Array,
): void {
  if (tensor.size !== operand.shape.reduce((a, b) => a * b, 1)) {
    throw new HalftoneError("invalid_argument", "Cannot write an input: another shape is needed", {
      found: tensor.shape,
      expected: operand.shape,
    });
  }
  const { bytes } = operand.dtype === "int32" ? asInt32(tensor) : tensor.cast("float32");
  const values = new Int32Array(bytes.buffer, bytes.byteOffset, tensor.size);
  forEachLine(operand, (flat, element, count, step) => {
    if (step === 1) words.set(values.subarray(flat, flat + count), element);
    else for (let i = 0; i < count; i++) words[element + i * step] = values[flat + i];
  });
}

/** A copy of an operand's values from the words of its buffer. */
export function readOperand(operand: ActivationOperand, words: Int32Array): HostTensor {
  const tensor = HostTensor.zeros(operand.dtype, operand.shape);
  const values = new Int32Array(tensor.bytes.buffer, tensor.bytes.byteOffset, tensor.size);
  forEachLine(operand, (flat, element, count, step) => {
    if (step === 1) values.set(words.subarray(element, element + count), flat);
    else for (let i = 0; i < count; i++) values[flat + i] = words[element + i * step];
  });
  return tensor;
}

/** Calls `line(flat index, element offset, count, step)` for each innermost run of an operand. */
function forEachLine(
  operand: ActivationOperand,
  line: (flat: number, element: number, count: number, step: number) => void,
): void {
  const { shape } = operand;
  if (shape.includes(0)) return;
  const flat = contiguousStrides(shape);
  const axes = mergeAxes(
    shape.map((size, axis) => ({ size, strides: [operand.strides[axis], flat[axis]] })),
  );
  const inner = axes.pop() ?? { size: 1, strides: [1, 1] };
  const walk = (axis: number, element: number, index: number): void => {
    if (axis === axes.length) return line(index, element, inner.size, inner.strides[0]);
    const { size, strides } = axes[axis];
    for (let i = 0; i < size; i++) walk(axis + 1, element + i * strides[0], index + i * strides[1]);
  };
  walk(0, operand.offset, 0);
}

function asInt32(tensor: HostTensor): HostTensor {
  if (tensor.dtype === "int32") return tensor;
  throw new HalftoneError("invalid_argument", "Cannot write an input: int32 is needed", {
    found: tensor.dtype,
  });
}
