/** The functions and numbers of NVIDIA's driver beside its own header, where a toolkit or a wheel has brought it along. */

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import * as symbols from "../../src/backends/cuda/driver_symbols.ts";
import { Header, headerFolder } from "./header.ts";

const folder = await headerFolder("cuda.h", "cudaTypedefs.h");
const skip = folder === null && "no header of the driver is installed";
if (skip) console.log(`cuda: the driver's header is not read: ${skip}`);

const FUNCTIONS = { ...symbols.VERSION_SYMBOLS, ...symbols.DRIVER_SYMBOLS };
const { ATTRIBUTE, CUDA, LAUNCH_PARAMETER } = symbols;

/** Our numbers by the header's names. */
const NUMBERS: Readonly<Record<string, number>> = {
  CUDA_SUCCESS: CUDA.success,
  CUDA_ERROR_OUT_OF_MEMORY: CUDA.outOfMemory,
  CUDA_ERROR_NO_DEVICE: CUDA.noDevice,
  CUDA_ERROR_NOT_READY: CUDA.notReady,
  CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR: ATTRIBUTE.capabilityMajor,
  CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR: ATTRIBUTE.capabilityMinor,
  CU_DEVICE_ATTRIBUTE_MEMORY_POOLS_SUPPORTED: ATTRIBUTE.memoryPools,
  CU_MEMPOOL_ATTR_RELEASE_THRESHOLD: symbols.POOL_ATTRIBUTE.releaseThreshold,
  CU_STREAM_NON_BLOCKING: symbols.STREAM_FLAG.nonBlocking,
  CU_EVENT_DISABLE_TIMING: symbols.EVENT_FLAG.disableTiming,
  CU_STREAM_CAPTURE_MODE_RELAXED: symbols.CAPTURE_MODE.relaxed,
  CU_LAUNCH_PARAM_END_AS_INT: LAUNCH_PARAMETER.end,
  CU_LAUNCH_PARAM_BUFFER_POINTER_AS_INT: LAUNCH_PARAMETER.bufferPointer,
  CU_LAUNCH_PARAM_BUFFER_SIZE_AS_INT: LAUNCH_PARAMETER.bufferSize,
};

test("the driver's functions are called as its header declares them", { skip }, () => {
  const header = new Header([`${folder}/cuda.h`]);
  for (const [name, signature] of Object.entries(FUNCTIONS)) {
    const declared = JSON.stringify(header.signatures(name));
    assert.ok(header.declares(name, signature), `${name}: ${declared}`);
  }
});

test("the driver's numbers are the header's", { skip }, () => {
  const found = new Header([`${folder}/cuda.h`]).numbers();
  for (const [name, value] of Object.entries(NUMBERS)) assert.equal(found.get(name), value, name);
});

test("drivers for CUDA 12.0 have every function", { skip }, () => {
  const types = readFileSync(`${folder}/cudaTypedefs.h`, "utf8");
  for (const name of Object.keys(FUNCTIONS)) {
    const base = name.replace(/_v\d$/, "");
    const versions = [...types.matchAll(new RegExp(`PFN_${base}_v(\\d+)\\)`, "g"))];
    const first = Math.min(...versions.map(([, version]) => Number(version)));
    assert.ok(first <= symbols.LEAST_DRIVER, `${name} came with ${first}`);
  }
});
