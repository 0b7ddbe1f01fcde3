/** A plan made ready for a device: its arena, and graphs of its launches, run one after another. */

import { HalftoneError } from "../../errors.ts";
import type { ActivationOperand, Plan } from "../../plan/plan.ts";
import type { HostTensor } from "../../tensor/host_tensor.ts";
import { aligned } from "../alignment.ts";
import type { Program } from "../backend.ts";
import { namedOperand, readOperand, writeOperand } from "../operand_values.ts";
import { planSlots, segmentOfSteps, type SlotPlan } from "../slot_plan.ts";
import { unitLayout } from "../weight_unit.ts";
import { RoundedRegion } from "./rounded_region.ts";
import { ConstantPool } from "./constant_pool.ts";
import type { Launch, Products } from "./cuda_step.ts";
import type { CudaDevice } from "./device.ts";
import { encodePlan, measurePlan } from "./encode.ts";
import type { CudaWeightSet } from "./weight_set.ts";

/** Bytes in which kernels tell of a fault: code, step, value. */
const FAULT_BYTES = 16;
const GATHER_RANGE = 1;
/** Steps of a graph: a run can be stopped between graphs. */
const GRAPH_STEPS = 48;
/** Graphs that are enqueued at once: the device never waits for the host. */
const GRAPHS_AHEAD = 2;

/** Bytes a program takes beside its arena and its weights' home. */
export function programScratch(
  plan: Plan,
  slots: SlotPlan | undefined,
  products: Products,
): number {
  const slotBytes = slots?.slotBytes ?? [0, 0];
  const { stepScratchBytes, constantBytes, roundedBytes } = measurePlan(
    plan,
    products,
    slots !== undefined,
  );
  return aligned(FAULT_BYTES) + constantBytes + roundedBytes + aligned(stepScratchBytes) +
    slotBytes[0] + slotBytes[1];
}

/** What a program needs of its backend. */
export interface ProgramHost {
  readonly device: CudaDevice;
  readonly products: Products;
  readonly residentWeightBytes: number;
  /** Puts a launch into the compute stream. */
  enqueue(launch: Launch): void;
  /** Runs an action after all runs asked for before. */
  inTurn(action: () => Promise<void>): Promise<void>;
  /** Whether the backend is about to close. */
  isClosing(): boolean;
  forget(program: CudaProgram): void;
}

/** Copies that bring a segment's weights into its slot. */
type Copies = readonly { readonly to: number; readonly from: number; readonly bytes: number }[];

/** One graph of a run and the copies it waits for. */
interface Section {
  readonly graph: number;
  readonly copies: Copies;
}

/** A compiled plan. */
export class CudaProgram implements Program {
  readonly plan: Plan;
  readonly #host: ProgramHost;
  readonly #arena: number;
  readonly #fault: number;
  readonly #taken: number[] = [];
  readonly #sections: Section[] = [];
  readonly #events: number[] = [];
  readonly #copyEvents: number[] = [];
  #isReleased = false;

  /** Allocates, encodes and captures everything; on failure nothing stays allocated. */
  constructor(plan: Plan, set: CudaWeightSet, host: ProgramHost) {
    this.plan = plan;
    this.#host = host;
    try {
      this.#arena = this.#take(plan.arenaBytes, "arena", `the intermediates of ${plan.name}`);
      const slots = set.isResident ? undefined : planSlots(plan, host.residentWeightBytes);
      const scratch = this.#take(programScratch(plan, slots, host.products), "scratch", "scratch");
      this.#fault = scratch;
      this.#prepare(set, slots, scratch + aligned(FAULT_BYTES));
      for (const { operand, value } of plan.constants) this.#store(operand, value);
      // Memory of the pool is there for other streams only once the stream that asked for it got so far.
      host.device.synchronize(`prepare ${plan.name}`);
    } catch (error) {
      this.#free();
      throw error;
    }
  }

  write(input: string, tensor: HostTensor): void {
    this.#checkUsable();
    this.#store(namedOperand(this.plan.inputs, input, "input"), tensor);
  }

  read(output: string): HostTensor {
    this.#checkUsable();
    const operand = namedOperand(this.plan.outputs, output, "output");
    return readOperand(operand, this.#load(operand));
  }

  run(options: { signal?: AbortSignal } = {}): Promise<void> {
    return this.#host.inTurn(() => this.#run(options.signal));
  }

  release(): void {
    if (this.#isReleased) return;
    this.#free();
    this.#host.forget(this);
  }

  async #run(signal?: AbortSignal): Promise<void> {
    this.#checkUsable();
    if (signal?.aborted) throw aborted(signal);
    const { device } = this.#host;
    device.fill(this.#fault, 0, FAULT_BYTES / 4);
    const isStopped = () => signal?.aborted === true || this.#host.isClosing();
    let enqueued = 0;
    for (const section of this.#sections) {
      if (enqueued >= GRAPHS_AHEAD) await device.reached(this.#events[enqueued % GRAPHS_AHEAD]!);
      if (isStopped()) break;
      this.#enqueue(section, enqueued++);
    }
    for (let left = Math.min(enqueued, GRAPHS_AHEAD); left > 0; left--) {
      await device.reached(this.#events[(enqueued - left) % GRAPHS_AHEAD]!);
    }
    if (signal?.aborted) throw aborted(signal);
    if (this.#host.isClosing()) {
      throw new HalftoneError("closed", "Cannot go on: the backend was closed");
    }
    this.#checkFault();
  }

  /** The slot of section n is free: sections up to n - 2 are done. So its copies overlap section n - 1. */
  #enqueue({ graph, copies }: Section, index: number): void {
    const { device } = this.#host;
    if (copies.length > 0) {
      for (const { to, from, bytes } of copies) {
        device.copyFromPinned(to, from, bytes, device.copies);
      }
      const copied = this.#copyEvents[index % GRAPHS_AHEAD]!;
      device.record(copied, device.copies);
      device.waitFor(copied, device.compute);
    }
    device.launch(graph);
    device.record(this.#events[index % GRAPHS_AHEAD]!, device.compute);
  }

  #checkFault(): void {
    const words = new Int32Array(new ArrayBuffer(FAULT_BYTES));
    this.#host.device.download(this.#fault, new Uint8Array(words.buffer));
    const [code, step, value] = words;
    if (code !== GATHER_RANGE) return;
    throw new HalftoneError("invalid_argument", "Cannot gather: an id is outside the table", {
      field: `step ${step}`,
      found: value,
    });
  }

  #prepare(set: CudaWeightSet, slots: SlotPlan | undefined, region: number): void {
    const { plan } = this;
    const { device } = this.#host;
    const { products } = this.#host;
    const measured = measurePlan(plan, products, slots !== undefined);
    const constants = new ConstantPool(region);
    const rounded = new RoundedRegion(plan, products, region + measured.constantBytes);
    const stepScratch = region + measured.constantBytes + measured.roundedBytes;
    const firstSlot = stepScratch + aligned(measured.stepScratchBytes);
    const slotAddresses = [firstSlot, firstSlot + (slots?.slotBytes[0] ?? 0)];
    const segments = slots ? segmentOfSteps(slots) : [];
    const slotOf = (weight: number, segment: number): number =>
      slotAddresses[segment % 2]! + slots!.offsets[segment]!.get(weight)!;
    const unit = (weight: number, step: number): number =>
      slots ? slotOf(weight, segments[step]!) : set.address(plan.weights[weight]!.name);
    const { steps } = encodePlan(plan, {
      arena: this.#arena,
      stepScratch,
      fault: this.#fault,
      weights: { unit },
      isExactIn: (weight, type) => set.isExactIn(plan.weights[weight]!.name, type),
      constants,
      products,
      rounded,
      hasSignedCodes: slots === undefined,
    });
    constants.forEach((address, bytes) => device.upload(address, bytes));
    for (let i = 0; i < GRAPHS_AHEAD; i++) {
      this.#events.push(device.createEvent());
      if (slots) this.#copyEvents.push(device.createEvent());
    }
    if (!slots) return this.#captureResident(steps);
    slots.segments.forEach(({ firstStep, lastStep, weights }, segment) => {
      const copies = weights.map((weight) => ({
        to: slotOf(weight, segment),
        from: set.address(plan.weights[weight]!.name),
        bytes: unitLayout(plan.weights[weight]!).bytes,
      }));
      this.#capture(steps.slice(firstStep, lastStep + 1), copies);
    });
  }

  #captureResident(steps: readonly (readonly Launch[])[]): void {
    for (let first = 0; first < steps.length; first += GRAPH_STEPS) {
      this.#capture(steps.slice(first, first + GRAPH_STEPS), []);
    }
  }

  #capture(steps: readonly (readonly Launch[])[], copies: Copies): void {
    const { device } = this.#host;
    const launches = steps.flat();
    if (launches.length === 0) return;
    const enqueue = (launch: Launch) => this.#host.enqueue(launch);
    for (const launch of launches) {
      if (isCold(launch)) enqueue(launch);
    }
    const graph = device.capture(() => launches.forEach(enqueue));
    this.#sections.push({ graph, copies });
  }

  /** Buffers travel whole, so what lies between the elements of a strided view is kept. */
  #store(operand: ActivationOperand, tensor: HostTensor): void {
    const covers = tensor.size * 4 === this.plan.buffers[operand.buffer]!.bytes;
    const words = covers ? this.#blank(operand) : this.#load(operand);
    writeOperand(operand, tensor, words);
    const { offset } = this.plan.buffers[operand.buffer]!;
    this.#host.device.upload(this.#arena + offset, bytesOf(words));
  }

  #load(operand: ActivationOperand): Int32Array {
    const words = this.#blank(operand);
    const { offset } = this.plan.buffers[operand.buffer]!;
    this.#host.device.download(this.#arena + offset, bytesOf(words));
    return words;
  }

  #blank(operand: ActivationOperand): Int32Array {
    return new Int32Array(this.plan.buffers[operand.buffer]!.bytes / 4);
  }

  #take(bytes: number, kind: "arena" | "scratch", purpose: string): number {
    const address = this.#host.device.allocate(bytes, kind, purpose);
    this.#taken.push(address);
    return address;
  }

  #free(): void {
    this.#isReleased = true;
    const { device } = this.#host;
    for (const { graph } of this.#sections.splice(0)) device.destroyGraph(graph);
    for (const event of [...this.#events.splice(0), ...this.#copyEvents.splice(0)]) {
      device.destroyEvent(event);
    }
    for (const address of this.#taken.splice(0)) device.free(address);
  }

  #checkUsable(): void {
    this.#host.device.checkOpen();
    if (this.#isReleased) {
      throw new HalftoneError("closed", "Cannot use the program: it was released");
    }
    this.#host.device.use();
  }
}

/** A library's work that never ran: what it does first must not fall into a capture. Its result does not matter. */
function isCold(launch: Launch): boolean {
  return launch.kind !== "kernel" && !launch.prepared.isWarm;
}

function bytesOf(words: Int32Array): Uint8Array {
  return new Uint8Array(words.buffer, words.byteOffset, words.byteLength);
}

function aborted(signal: AbortSignal): HalftoneError {
  return new HalftoneError("aborted", "Cannot finish the run: it was aborted", {}, signal.reason);
}
