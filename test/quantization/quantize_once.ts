/** Quantizes a matrix on two workers and leaves; kernels.test.ts waits for the end. */

import { createPause } from "../../src/quantization/pause.ts";
import { HostTensor } from "../../src/tensor/host_tensor.ts";
import { quantizerOf } from "./method_support.ts";

const quantizer = quantizerOf({ load_in_8bit: true });
const dense = HostTensor.zeros("bfloat16", [1024, 2304]);
const { tensor } = await quantizer.quantize("weight", dense, createPause({ threads: 2 }));
console.log(`${tensor.codes.length} codes`);
