/** The functions of NVIDIA's driver (libcuda) that are called, as cuda.h declares them. */

import type { ForeignSignature, ForeignType } from "../../runtime/foreign.ts";

/** A function that gives a CUresult. "p" is an address, "h" a handle, "s" a size; the rest are 32 bits. */
function returnsResult(parameters: string): ForeignSignature {
  const types: Record<string, ForeignType> = { p: "u64", h: "u64", s: "u64", i: "i32", u: "u32" };
  return { parameters: [...parameters].map((letter) => types[letter]!), result: "i32" };
}

/** Asked before anything else, so that an old driver is told apart from a missing function. */
export const VERSION_SYMBOLS = {
  cuDriverGetVersion: returnsResult("p"),
} as const;

/** Everything else. */
export const DRIVER_SYMBOLS = {
  cuInit: returnsResult("u"),
  cuGetErrorName: returnsResult("ip"),
  cuGetErrorString: returnsResult("ip"),
  cuDeviceGetCount: returnsResult("p"),
  cuDeviceGet: returnsResult("pi"),
  cuDeviceGetName: returnsResult("pii"),
  cuDeviceGetAttribute: returnsResult("pii"),
  cuDevicePrimaryCtxRetain: returnsResult("pi"),
  cuDevicePrimaryCtxRelease_v2: returnsResult("i"),
  cuCtxSetCurrent: returnsResult("h"),
  cuDeviceGetDefaultMemPool: returnsResult("pi"),
  cuMemPoolSetAttribute: returnsResult("hip"),
  cuMemPoolTrimTo: returnsResult("hs"),
  cuMemGetInfo_v2: returnsResult("pp"),
  cuMemAllocAsync: returnsResult("psh"),
  cuMemFreeAsync: returnsResult("ph"),
  cuMemHostAlloc: returnsResult("psu"),
  cuMemFreeHost: returnsResult("p"),
  cuMemcpyHtoDAsync_v2: returnsResult("ppsh"),
  cuMemcpyDtoHAsync_v2: returnsResult("ppsh"),
  cuMemsetD32Async: returnsResult("push"),
  cuModuleLoadData: returnsResult("pp"),
  cuModuleUnload: returnsResult("h"),
  cuModuleGetFunction: returnsResult("php"),
  cuLaunchKernel: returnsResult("huuuuuuuhpp"),
  cuStreamCreate: returnsResult("pu"),
  cuStreamDestroy_v2: returnsResult("h"),
  cuStreamSynchronize: returnsResult("h"),
  cuStreamWaitEvent: returnsResult("hhu"),
  cuStreamBeginCapture_v2: returnsResult("hi"),
  cuStreamEndCapture: returnsResult("hp"),
  cuGraphInstantiateWithFlags: returnsResult("phs"),
  cuGraphDestroy: returnsResult("h"),
  cuGraphExecDestroy: returnsResult("h"),
  cuGraphLaunch: returnsResult("hh"),
  cuEventCreate: returnsResult("pu"),
  cuEventRecord: returnsResult("hh"),
  cuEventQuery: returnsResult("h"),
  cuEventSynchronize: returnsResult("h"),
  cuEventElapsedTime: returnsResult("phh"),
  cuEventDestroy_v2: returnsResult("h"),
} as const;

/** CUDA 12.0, the first driver that loads the kernels as they are built. */
export const LEAST_DRIVER = 12000;

/** CUresult, as far as it means something to a caller. */
export const CUDA = { success: 0, outOfMemory: 2, noDevice: 100, notReady: 600 } as const;
/** CUdevice_attribute. */
export const ATTRIBUTE = { capabilityMajor: 75, capabilityMinor: 76, memoryPools: 115 } as const;
/** CUmemPool_attribute. */
export const POOL_ATTRIBUTE = { releaseThreshold: 4 } as const;
/** CUstream_flags and CUevent_flags: no implicit order with others' work, no timing. */
export const STREAM_FLAG = { nonBlocking: 1 } as const;
export const EVENT_FLAG = { disableTiming: 2 } as const;
/** CUstreamCaptureMode. */
export const CAPTURE_MODE = { relaxed: 2 } as const;
/** Words of cuLaunchKernel's `extra`, each before an address: of the parameters, and of their size. */
export const LAUNCH_PARAMETER = { end: 0, bufferPointer: 1, bufferSize: 2 } as const;

/** A function of the driver. */
export type DriverFunction = keyof typeof DRIVER_SYMBOLS;
