/** The kernels of one device: the built module that fits it, and its functions. */

import { addressOf } from "../../runtime/foreign.ts";
import type { KernelLaunch } from "./cuda_step.ts";
import { versionText } from "./driver.ts";
import type { CudaDevice } from "./device.ts";
import { LAUNCH_PARAMETER } from "./driver_symbols.ts";
import { loadImage } from "./kernel_images.ts";
import { BLOCK_THREADS, KERNEL_NAMES, type KernelName } from "./kernel_names.ts";
import { unavailable } from "./driver.ts";

/** A loaded module. */
export class Kernels {
  readonly #device: CudaDevice;
  readonly #module: number;
  readonly #functions: Readonly<Record<KernelName, number>>;
  readonly #size = new BigUint64Array(new ArrayBuffer(8));
  readonly #extra = new BigUint64Array(new ArrayBuffer(40));

  private constructor(device: CudaDevice, module: number) {
    this.#device = device;
    this.#module = module;
    const functions = KERNEL_NAMES.map((name) => [name, functionOf(device, module, name)]);
    this.#functions = Object.fromEntries(functions);
    const { bufferPointer, bufferSize, end } = LAUNCH_PARAMETER;
    const extra = [bufferPointer, 0, bufferSize, addressOf(this.#size), end];
    this.#extra.set(extra.map(BigInt));
  }

  /** Loads the build that fits the device. Throws `backend_unavailable` when none does. */
  static async load(device: CudaDevice): Promise<Kernels> {
    const image = await loadImage(device.capability);
    if (!image) {
      throw unavailable("the kernels are not built for this device", {
        found: `${device.name}, compute capability ${device.capability / 10}`,
        expected: "compute capability 8.0 or higher",
        remedy: `The driver is for CUDA ${versionText(device.driver.version)}; use --backend wasm`,
      });
    }
    device.use();
    const doing = "load the kernels";
    const module = device.driver.get("cuModuleLoadData", doing, addressOf(image));
    try {
      return new Kernels(device, module);
    } catch (error) {
      device.driver.try("cuModuleUnload", module);
      throw error;
    }
  }

  /** Puts a launch into the compute stream. */
  launch({ kernel, grid, parameters }: KernelLaunch): void {
    this.#extra[1] = BigInt(addressOf(parameters));
    this.#size[0] = BigInt(parameters.length);
    this.#device.driver.run(
      "cuLaunchKernel",
      `launch kernel ${kernel}`,
      this.#functions[kernel],
      ...grid,
      BLOCK_THREADS,
      1,
      1,
      0,
      this.#device.compute,
      0,
      addressOf(this.#extra),
    );
  }

  /** Unloads the module. */
  close(): void {
    this.#device.driver.try("cuModuleUnload", this.#module);
  }
}

function functionOf(device: CudaDevice, module: number, name: KernelName): number {
  const text = new TextEncoder().encode(`${name}\0`);
  const copy = new Uint8Array(new ArrayBuffer(text.length));
  copy.set(text);
  const doing = `find kernel ${name}`;
  return device.driver.get("cuModuleGetFunction", doing, module, addressOf(copy));
}
