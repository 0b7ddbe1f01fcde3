/** A plan made ready for the wasm backend: its arena, its tape, and where its weights lie. */

import { HalftoneError } from "../../errors.ts";
import type { HostTensor } from "../../tensor/host_tensor.ts";
import type { ActivationOperand, Plan } from "../../plan/plan.ts";
import { aligned } from "../alignment.ts";
import type { Program } from "../backend.ts";
import { namedOperand, readOperand, writeOperand } from "../operand_values.ts";
import { planSlots, type SlotPlan } from "../slot_plan.ts";
import { descriptorBytes, encodePlan, measurePlan } from "./encode.ts";
import type { Engine, PlacedTape } from "./engine.ts";
import type { RegionAllocator, RegionUse } from "./region_allocator.ts";
import { segmentCopies } from "./segment_copies.ts";
import { WeightPlacer } from "./weight_placer.ts";
import type { WasmWeightSet } from "./weight_set.ts";

/** Words of a segment mark on the tape. */
const MARK_WORDS = 4;

let programCount = 0;

/** Bytes of the regions of a program beside its arena and resident weights. */
export interface ProgramBytes {
  readonly descriptors: number;
  readonly stepScratch: number;
  readonly tape: number;
  readonly slots: readonly number[];
}

/** What a program takes, streamed or not; the sum of its regions as allocated. */
export function programBytes(plan: Plan, slots: SlotPlan | undefined): ProgramBytes {
  const { tapeBytes, stepScratchBytes, matrixDescriptors } = measurePlan(plan);
  const uses = slots
    ? slots.offsets.reduce((sum, places) => sum + places.size, 0)
    : plan.weights.length;
  const marks = slots ? slots.segments.length * 2 * MARK_WORDS * 4 : 0;
  return {
    descriptors: descriptorBytes(uses + matrixDescriptors),
    stepScratch: stepScratchBytes,
    tape: tapeBytes + marks,
    slots: slots ? slots.slotBytes : [],
  };
}

/** The allocated bytes of a program's own regions. */
export function totalProgramBytes(bytes: ProgramBytes): number {
  return [bytes.descriptors, bytes.stepScratch, bytes.tape, ...bytes.slots]
    .reduce((sum, region) => sum + Math.max(aligned(region), aligned(1)), 0);
}

/** The regions of a program in memory. */
class ProgramRegions {
  readonly arena: number;
  readonly descriptors: number;
  readonly stepScratch: number;
  readonly tape: number;
  readonly tapeBytes: number;
  readonly slots: readonly [even: number, odd: number];
  readonly #allocator: RegionAllocator;
  readonly #taken: number[] = [];

  constructor(plan: Plan, engine: Engine, bytes: ProgramBytes) {
    this.#allocator = engine.memory.allocator;
    this.tapeBytes = bytes.tape;
    try {
      this.arena = this.#take(plan.arenaBytes, "arena");
      this.descriptors = this.#take(bytes.descriptors, "scratch");
      this.stepScratch = this.#take(bytes.stepScratch, "scratch");
      this.tape = this.#take(bytes.tape, "scratch");
      const slots = bytes.slots.map((size) => this.#take(size, "scratch"));
      this.slots = [slots[0] ?? 0, slots[1] ?? 0];
    } catch (error) {
      this.free();
      throw error;
    }
  }

  free(): void {
    for (const region of this.#taken.splice(0)) this.#allocator.free(region);
  }

  #take(bytes: number, use: RegionUse): number {
    const region = this.#allocator.allocate(bytes, use);
    this.#taken.push(region);
    return region;
  }
}

/** Encodes a plan for its regions and writes the tape into memory. */
function writeTape(
  plan: Plan,
  engine: Engine,
  regions: ProgramRegions,
  placer: WeightPlacer,
): PlacedTape {
  const { arena, stepScratch, tape: address } = regions;
  const { tape } = encodePlan(plan, { arena, stepScratch, ...placer.placement() });
  if (tape.length * 4 > regions.tapeBytes) {
    throw new HalftoneError("backend_failed", "Cannot encode: the tape outgrew its measure");
  }
  tape.writeTo(engine.memory.words(address, tape.length));
  return { address, steps: tape.steps, starts: tape.starts.map((word) => word * 4) };
}

/** A compiled plan. */
export class WasmProgram implements Program {
  readonly plan: Plan;
  readonly #engine: Engine;
  readonly #regions: ProgramRegions;
  readonly #tape: PlacedTape;
  readonly #onRelease: (program: WasmProgram) => void;
  readonly #onTimes: (milliseconds: Float64Array) => void;
  #released = false;

  private constructor(
    plan: Plan,
    engine: Engine,
    regions: ProgramRegions,
    tape: PlacedTape,
    onRelease: (program: WasmProgram) => void,
    onTimes: (milliseconds: Float64Array) => void,
  ) {
    this.plan = plan;
    this.#engine = engine;
    this.#regions = regions;
    this.#tape = tape;
    this.#onRelease = onRelease;
    this.#onTimes = onTimes;
    for (const { operand, value } of plan.constants) {
      writeOperand(operand, value, this.#bufferWords(operand));
    }
  }

  /** Allocates, encodes and writes everything a run needs; on failure nothing stays allocated. */
  static async compile(
    plan: Plan,
    engine: Engine,
    set: WasmWeightSet,
    residentWeightBytes: number,
    onRelease: (program: WasmProgram) => void,
    onTimes: (milliseconds: Float64Array) => void,
  ): Promise<WasmProgram> {
    const slots = set.isResident ? undefined : planSlots(plan, residentWeightBytes);
    const regions = new ProgramRegions(plan, engine, programBytes(plan, slots));
    try {
      const placer = new WeightPlacer(plan, engine, set, regions.descriptors, slots, regions.slots);
      const tape = writeTape(plan, engine, regions, placer);
      if (!slots) return new WasmProgram(plan, engine, regions, tape, onRelease, onTimes);
      const segments = segmentCopies(plan, slots, regions.slots, set);
      const stream = { program: ++programCount, segments };
      await engine.addStream(stream.program, segments);
      return new WasmProgram(plan, engine, regions, { ...tape, stream }, onRelease, onTimes);
    } catch (error) {
      regions.free();
      throw error;
    }
  }

  write(input: string, tensor: HostTensor): void {
    this.#checkUsable();
    const operand = namedOperand(this.plan.inputs, input, "input");
    writeOperand(operand, tensor, this.#bufferWords(operand));
  }

  async run(options: { signal?: AbortSignal } = {}): Promise<void> {
    this.#checkUsable();
    const times = await this.#engine.run(this.#tape, options.signal);
    if (times) this.#onTimes(this.#sumByStep(times));
  }

  /** The milliseconds of the plan's steps from those of the tape's, which may be several a step. */
  #sumByStep(times: Float64Array): Float64Array {
    const sums = new Float64Array(this.plan.steps.length);
    times.forEach((time, index) => {
      const [, , step] = this.#engine.memory.words(
        this.#tape.address + this.#tape.starts[index],
        3,
      );
      if (step < sums.length) sums[step] += time;
    });
    return sums;
  }

  read(output: string): HostTensor {
    this.#checkUsable();
    const operand = namedOperand(this.plan.outputs, output, "output");
    return readOperand(operand, this.#bufferWords(operand));
  }

  release(): void {
    if (this.#released) return;
    this.#released = true;
    this.#regions.free();
    if (this.#tape.stream) this.#engine.removeStream(this.#tape.stream.program);
    this.#onRelease(this);
  }

  #bufferWords(operand: ActivationOperand): Int32Array {
    const { offset, bytes } = this.plan.buffers[operand.buffer];
    return this.#engine.memory.words(this.#regions.arena + offset, bytes / 4);
  }

  #checkUsable(): void {
    this.#engine.checkOpen();
    if (this.#released) {
      throw new HalftoneError("closed", "Cannot use the program: it was released");
    }
  }
}
