/** Whether numbers are of 16 bits although they lie in 32: a checkpoint's bfloat16 biases are float32 here. */

import { HostTensor } from "../../tensor/host_tensor.ts";
import type { NarrowType } from "./plain_rows.ts";

const NARROW_TYPES: readonly NarrowType[] = ["float16", "bfloat16"];

/** The types of 16 bits that hold every one of some numbers as it is. */
export function typesThatHold(values: Float32Array): NarrowType[] {
  const tensor = HostTensor.fromFloat32(values);
  return NARROW_TYPES.filter((type) => {
    const held = tensor.cast(type).toFloat32();
    return values.every((value, index) => value === held[index]);
  });
}
