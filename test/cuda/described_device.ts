/** Devices that only a description tells of, for NVIDIA's own cuDNN without a GPU. */

import type { CudnnCalls } from "../../src/backends/cuda/cudnn_calls.ts";
import { CudnnDescriptors } from "../../src/backends/cuda/cudnn_descriptors.ts";
import { describeOperation } from "../../src/backends/cuda/cudnn_operations.ts";
import {
  type CudnnPlan,
  fittingPlans,
  type WantedPlans,
} from "../../src/backends/cuda/cudnn_plan.ts";
import { CUDNN_ATTRIBUTE, CUDNN_DESCRIPTOR } from "../../src/backends/cuda/cudnn_symbols.ts";
import { type DnnProblem, problemText } from "../../src/backends/cuda/dnn_problem.ts";

/** What cuDNN's choices depend on: compute capability, multiprocessors, shared memory of a block. */
export const DEVICES = {
  "A100": { capability: 800, processors: 108, shared: 166912 },
  "RTX 4090": { capability: 890, processors: 128, shared: 101376 },
  "H200": { capability: 900, processors: 132, shared: 232448 },
  "B200": { capability: 1000, processors: 148, shared: 232448 },
  "RTX 5090": { capability: 1200, processors: 170, shared: 101376 },
} as const;

/** The name of a device. */
export type DeviceName = keyof typeof DEVICES;

/** The form in which cuDNN 9.20 reads a device; the numbers that all of ours share are H200's. */
function description(name: DeviceName): string {
  const { capability, processors, shared } = DEVICES[name];
  return JSON.stringify({
    cudaDeviceId: 0,
    deviceName: `NVIDIA ${name}`,
    deviceVer: capability,
    driverVer: 13000,
    isTccDriver: 0,
    l2CacheSize: 62914560,
    maxBlockSize: [1024, 1024, 64],
    maxCtasPerSM: 32,
    maxGridSize: [2147483647, 65535, 65535],
    maxRegistersPerSM: 65536,
    maxSharedMemoryPerBlock: 49152,
    maxSharedMemoryPerBlockOptin: shared,
    maxThreadsPerBlock: 1024,
    maxThreadsPerSM: 2048,
    memClockRateKHz: 3201000,
    multiProcessorCount: processors,
    pciDeviceId: 0,
    regsPerBlock: 65536,
    reservedSharedMemoryPerBlock: 1024,
    smClockRateKHz: 1980000,
    supportCoopLaunch: 1,
    totalGlobalMem: 24 * 2 ** 30,
    warpSize: 32,
  });
}

/** What is known of plans for a device, without the plans themselves. */
export type DescribedPlan = Omit<CudnnPlan, "plan">;

/** Plans for a device; the library's first one by default. */
export function describedPlans(
  calls: CudnnCalls,
  device: DeviceName,
  problem: DnnProblem,
  wanted: WantedPlans = { most: 1 },
): DescribedPlan[] {
  const descriptors = new CudnnDescriptors(calls, `plan ${problemText(problem)}`);
  try {
    const deviceProperties = descriptors.make(CUDNN_DESCRIPTOR.deviceProperties);
    descriptors.setText(
      deviceProperties,
      CUDNN_ATTRIBUTE.deviceProperties.json,
      description(device),
    );
    descriptors.finalize(deviceProperties);
    const operation = describeOperation(descriptors, problem);
    const target = { kind: "described", deviceProperties } as const;
    const plans = fittingPlans({ calls, descriptors, target }, operation, problem, wanted);
    return plans.map(({ workspaceBytes, suggestion }) => ({ workspaceBytes, suggestion }));
  } finally {
    descriptors.free();
  }
}
