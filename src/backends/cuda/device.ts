/** One device: its context, memory, streams, and copies between host and device. */

import { HalftoneError } from "../../errors.ts";
import { addressOf, bytesAt } from "../../runtime/foreign.ts";
import { type MemoryKind, MemoryLedger } from "../memory_ledger.ts";
import { type Driver, unavailable } from "./driver.ts";
import {
  ATTRIBUTE,
  CAPTURE_MODE,
  CUDA,
  EVENT_FLAG,
  POOL_ATTRIBUTE,
  STREAM_FLAG,
} from "./driver_symbols.ts";

/** Bytes of each half of the pinned memory that copies pass through. */
const STAGE_BYTES = 4 * 1024 * 1024;
/** Queries of an event before the thread does other things between them. */
const QUICK_QUERIES = 50;

/** A device in use. */
export class CudaDevice {
  readonly driver: Driver;
  readonly name: string;
  /** Compute capability, such as 90. */
  readonly capability: number;
  readonly ledger: MemoryLedger = new MemoryLedger();
  /** Where plans run. */
  readonly compute: number;
  /** Where streamed weights are copied. */
  readonly copies: number;
  readonly #ordinal: number;
  readonly #context: number;
  readonly #pool: number;
  readonly #blocks = new Map<number, { bytes: number; kind: MemoryKind; pinned: boolean }>();
  readonly #events = new Set<number>();
  #stage: { address: number; bytes: Uint8Array } | undefined;
  #isClosed = false;

  private constructor(driver: Driver, ordinal: number) {
    this.driver = driver;
    const device = driver.get("cuDeviceGet", "find the device", ordinal);
    this.#ordinal = device;
    this.name = this.#readName(device);
    const attribute = (number: number) =>
      driver.get("cuDeviceGetAttribute", "ask what the device can do", number, device);
    this.capability = 10 * attribute(ATTRIBUTE.capabilityMajor) +
      attribute(ATTRIBUTE.capabilityMinor);
    if (attribute(ATTRIBUTE.memoryPools) === 0) {
      throw unavailable("the device has no memory pools", { found: this.name });
    }
    this.#context = driver.get("cuDevicePrimaryCtxRetain", "make a context", device);
    const made: number[] = [];
    try {
      this.use();
      this.#pool = this.#preparePool(device);
      for (let i = 0; i < 2; i++) {
        made.push(driver.get("cuStreamCreate", "make a stream", STREAM_FLAG.nonBlocking));
      }
    } catch (error) {
      for (const stream of made) driver.try("cuStreamDestroy_v2", stream);
      driver.try("cuDevicePrimaryCtxRelease_v2", device);
      throw error;
    }
    [this.compute, this.copies] = made as [number, number];
  }

  /** Starts a device; throws `backend_unavailable` when there is none of this number. */
  static open(driver: Driver, ordinal: number): CudaDevice {
    const count = driver.get("cuDeviceGetCount", "count devices");
    if (!Number.isInteger(ordinal) || ordinal < 0 || ordinal >= count) {
      throw unavailable("there is no such device", {
        field: "device",
        found: ordinal,
        expected: `0 to ${count - 1}`,
      });
    }
    return new CudaDevice(driver, ordinal);
  }

  /** Makes the device's context that of the calling thread. */
  use(): void {
    this.driver.run("cuCtxSetCurrent", "use the context", this.#context);
  }

  /** Bytes nobody uses, and bytes there are. */
  memoryBytes(): { free: number; total: number } {
    this.use();
    const [free, total] = this.driver.getTwo("cuMemGetInfo_v2", "ask for free memory");
    return { free, total };
  }

  /** Device memory, counted; throws `out_of_memory` with what it was for. */
  allocate(bytes: number, kind: MemoryKind, purpose: string): number {
    const doing = `allocate ${bytes} bytes of device memory for ${purpose}`;
    const address = this.driver.get("cuMemAllocAsync", doing, Math.max(bytes, 4), this.compute);
    this.#keep(address, bytes, kind, false);
    return address;
  }

  /** Memory of the host that the device copies from without the processor's help. */
  allocatePinned(bytes: number, kind: MemoryKind, purpose: string): number {
    const doing = `allocate ${bytes} bytes of pinned memory for ${purpose}`;
    const address = this.driver.get("cuMemHostAlloc", doing, Math.max(bytes, 4), 0);
    this.#keep(address, bytes, kind, true);
    return address;
  }

  /** Gives memory of either kind back. */
  free(address: number): void {
    const block = this.#blocks.get(address);
    if (!block) return;
    this.#blocks.delete(address);
    this.ledger.free(block.kind, block.bytes, block.pinned);
    if (block.pinned) this.driver.try("cuMemFreeHost", address);
    else this.driver.try("cuMemFreeAsync", address, this.compute);
  }

  /** Copies host bytes to the device, after what the compute stream does before. */
  upload(address: number, bytes: Uint8Array): void {
    const stage = this.#staging();
    for (let done = 0, part = 0; done < bytes.length; done += STAGE_BYTES, part ^= 1) {
      const piece = bytes.subarray(done, done + STAGE_BYTES);
      // The halves take turns; both must have left before the first is filled again.
      if (part === 0) this.synchronize("copy to the device");
      stage.bytes.set(piece, part * STAGE_BYTES);
      const from = stage.address + part * STAGE_BYTES;
      this.copyFromPinned(address + done, from, piece.length, this.compute);
    }
  }

  /** Starts a copy from pinned memory. */
  copyFromPinned(to: number, from: number, bytes: number, stream: number): void {
    this.driver.run("cuMemcpyHtoDAsync_v2", "copy to the device", to, from, bytes, stream);
  }

  /** Copies device bytes to the host, after all that the compute stream does. */
  download(address: number, bytes: Uint8Array): void {
    const stage = this.#staging();
    for (let done = 0; done < bytes.length; done += STAGE_BYTES) {
      const piece = bytes.subarray(done, done + STAGE_BYTES);
      const doing = "copy from the device";
      this.driver.run(
        "cuMemcpyDtoHAsync_v2",
        doing,
        stage.address,
        address + done,
        piece.length,
        this.compute,
      );
      this.synchronize(doing);
      piece.set(stage.bytes.subarray(0, piece.length));
    }
  }

  /** Sets words to a value, in the compute stream. */
  fill(address: number, value: number, words: number): void {
    this.driver.run("cuMemsetD32Async", "fill device memory", address, value, words, this.compute);
  }

  /** Waits for the compute stream; blocks the thread, so for short work only. */
  synchronize(doing: string): void {
    this.driver.run("cuStreamSynchronize", doing, this.compute);
  }

  /** A new event; one that is timed notes when it is reached. */
  createEvent(isTimed = false): number {
    const event = this.driver.get(
      "cuEventCreate",
      "make an event",
      isTimed ? 0 : EVENT_FLAG.disableTiming,
    );
    this.#events.add(event);
    return event;
  }

  /** Forgets an event. */
  destroyEvent(event: number): void {
    if (this.#events.delete(event)) this.driver.try("cuEventDestroy_v2", event);
  }

  /** Marks where a stream stands. */
  record(event: number, stream: number): void {
    this.driver.run("cuEventRecord", "record an event", event, stream);
  }

  /** Lets a stream wait for an event. */
  waitFor(event: number, stream: number): void {
    this.driver.run("cuStreamWaitEvent", "order two streams", stream, event, 0);
  }

  /** Waits until an event is reached, without blocking the thread for more than an instant. */
  async reached(event: number): Promise<void> {
    for (let queries = 0;; queries++) {
      const result = this.driver.try("cuEventQuery", event);
      if (result === CUDA.success) return;
      if (result !== CUDA.notReady) throw this.driver.errorOf(result, "cuEventQuery", "run a plan");
      if (queries < QUICK_QUERIES) continue;
      await new Promise((resolve) => setTimeout(resolve, 1));
      this.use();
    }
  }

  /** Records what `enqueue` puts into the compute stream as a graph that can be launched again and again. */
  capture(enqueue: () => void): number {
    const { driver } = this;
    driver.run("cuStreamBeginCapture_v2", "capture a graph", this.compute, CAPTURE_MODE.relaxed);
    try {
      enqueue();
    } catch (error) {
      this.#dropCapture();
      throw error;
    }
    const graph = driver.getFrom("cuStreamEndCapture", "capture a graph", this.compute);
    try {
      return driver.get("cuGraphInstantiateWithFlags", "make a graph ready", graph, 0);
    } finally {
      driver.try("cuGraphDestroy", graph);
    }
  }

  /** Launches a graph in the compute stream. */
  launch(graph: number): void {
    this.driver.run("cuGraphLaunch", "launch a graph", graph, this.compute);
  }

  /** Forgets a graph. */
  destroyGraph(graph: number): void {
    this.driver.try("cuGraphExecDestroy", graph);
  }

  /** Throws `closed` after `close`. */
  checkOpen(): void {
    if (this.#isClosed) throw new HalftoneError("closed", "Cannot use the backend: it is closed");
  }

  /** Waits for all that was enqueued, whether it failed or not. */
  finish(): void {
    this.use();
    for (const stream of [this.copies, this.compute]) {
      this.driver.try("cuStreamSynchronize", stream);
    }
  }

  /** Waits for the device and frees all that was taken from it. */
  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.finish();
    for (const event of [...this.#events]) this.destroyEvent(event);
    for (const address of [...this.#blocks.keys()]) this.free(address);
    if (this.#stage) this.driver.try("cuMemFreeHost", this.#stage.address);
    for (const stream of [this.copies, this.compute]) {
      this.driver.try("cuStreamSynchronize", stream);
      this.driver.try("cuStreamDestroy_v2", stream);
    }
    this.driver.try("cuMemPoolTrimTo", this.#pool, 0);
    this.driver.try("cuDevicePrimaryCtxRelease_v2", this.#ordinal);
  }

  /** Ends a capture that failed; what was captured may be a graph or nothing. */
  #dropCapture(): void {
    const graph = new BigUint64Array(new ArrayBuffer(8));
    this.driver.try("cuStreamEndCapture", this.compute, addressOf(graph));
    if (graph[0] !== 0n) this.driver.try("cuGraphDestroy", Number(graph[0]));
  }

  #keep(address: number, bytes: number, kind: MemoryKind, pinned: boolean): void {
    this.#blocks.set(address, { bytes, kind, pinned });
    this.ledger.take(kind, bytes, pinned);
  }

  /** Pinned memory for copies, made when it is first needed; not counted, as it is not the device's. */
  #staging(): { address: number; bytes: Uint8Array } {
    if (this.#stage) return this.#stage;
    const doing = "allocate pinned memory for copies";
    const address = this.driver.get("cuMemHostAlloc", doing, 2 * STAGE_BYTES, 0);
    return this.#stage = { address, bytes: bytesAt(address, 2 * STAGE_BYTES) };
  }

  /** The pool keeps freed memory, so that allocating again is cheap; `close` trims it. */
  #preparePool(device: number): number {
    const pool = this.driver.get("cuDeviceGetDefaultMemPool", "find the memory pool", device);
    const threshold = new BigUint64Array(new ArrayBuffer(8)).fill(2n ** 64n - 1n);
    const doing = "set up the memory pool";
    this.driver.run(
      "cuMemPoolSetAttribute",
      doing,
      pool,
      POOL_ATTRIBUTE.releaseThreshold,
      addressOf(threshold),
    );
    return pool;
  }

  #readName(device: number): string {
    const bytes = new Uint8Array(new ArrayBuffer(256));
    this.driver.run(
      "cuDeviceGetName",
      "ask for the device's name",
      addressOf(bytes),
      bytes.length,
      device,
    );
    return new TextDecoder().decode(bytes.subarray(0, bytes.indexOf(0)));
  }
}
