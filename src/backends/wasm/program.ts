/** A plan made ready for the wasm backend: its arena, its tape, and where its weights lie. */

import { HalftoneError } from "../../errors.ts";
import { contiguousStrides } from "../../tensor/shape.ts";
import { HostTensor } from "../../tensor/host_tensor.ts";
import type { ActivationOperand, Plan } from "../../plan/plan.ts";
import type { Program } from "../backend.ts";
import { descriptorBytes, encodePlan, measurePlan, type Placement } from "./encode.ts";
import type { Engine, PlacedTape } from "./engine.ts";
import { mergeAxes } from "./operand_view.ts";
import { aligned } from "./region_allocator.ts";
import { planSlots, segmentCopies, segmentOfSteps, type SlotPlan } from "./residency_plan.ts";
import { TAPE_OPCODE } from "./tape_writer.ts";
import { describeMatrix, describeWeight, DESCRIPTOR_WORDS } from "./weight_layout.ts";
import type { WasmWeightSet } from "./weight_set.ts";

const DESCRIPTOR_BYTES = DESCRIPTOR_WORDS * 4;
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

/** A compiled plan. */
export class WasmProgram implements Program {
  readonly plan: Plan;
  readonly #engine: Engine;
  readonly #arena: number;
  readonly #regions: readonly number[];
  readonly #tape: PlacedTape;
  readonly #onRelease: (program: WasmProgram) => void;
  #released = false;

  private constructor(
    plan: Plan,
    engine: Engine,
    placed: { arena: number; regions: readonly number[]; tape: PlacedTape },
    onRelease: (program: WasmProgram) => void,
  ) {
    this.plan = plan;
    this.#engine = engine;
    this.#arena = placed.arena;
    this.#regions = placed.regions;
    this.#tape = placed.tape;
    this.#onRelease = onRelease;
  }

  /** Allocates, encodes and writes everything a run needs. */
  static async compile(
    plan: Plan,
    engine: Engine,
    set: WasmWeightSet,
    residentWeightBytes: number,
    onRelease: (program: WasmProgram) => void,
  ): Promise<WasmProgram> {
    const slots = set.isResident ? undefined : planSlots(plan, residentWeightBytes);
    const bytes = programBytes(plan, slots);
    const { allocator } = engine.memory;
    const regions: number[] = [];
    const take = (size: number, use: "arena" | "scratch") => {
      regions.push(allocator.allocate(size, use));
      return regions.at(-1)!;
    };
    try {
      const arena = take(plan.arenaBytes, "arena");
      const descriptors = take(bytes.descriptors, "scratch");
      const stepScratch = take(bytes.stepScratch, "scratch");
      const address = take(bytes.tape, "scratch");
      const slotAddresses = bytes.slots.map((size) => take(size, "scratch"));
      const [even, odd] = [slotAddresses[0] ?? 0, slotAddresses[1] ?? 0];
      const places = new WeightPlacer(plan, engine, set, descriptors, slots, [even, odd]);
      const { tape } = encodePlan(plan, { arena, stepScratch, ...places.placement() });
      if (tape.length * 4 > bytes.tape) {
        throw new HalftoneError("backend_failed", "Cannot encode: the tape outgrew its measure");
      }
      tape.writeTo(engine.memory.words(address, tape.length));
      const stream = slots && {
        program: ++programCount,
        segments: segmentCopies(plan, slots, [even, odd], set),
      };
      if (stream) await engine.addStream(stream.program, stream.segments);
      const starts = tape.starts.map((word) => word * 4);
      const placed = { arena, regions, tape: { address, steps: tape.steps, starts, stream } };
      const program = new WasmProgram(plan, engine, placed, onRelease);
      program.#writeConstants();
      return program;
    } catch (error) {
      for (const region of regions) allocator.free(region);
      throw error;
    }
  }

  write(input: string, tensor: HostTensor): void {
    this.#checkUsable();
    this.#copyIn(this.#operand(this.plan.inputs, input, "input"), tensor);
  }

  async run(options: { signal?: AbortSignal } = {}): Promise<void> {
    this.#checkUsable();
    await this.#engine.run(this.#tape, options.signal);
  }

  read(output: string): HostTensor {
    this.#checkUsable();
    const operand = this.#operand(this.plan.outputs, output, "output");
    const tensor = HostTensor.zeros(operand.dtype, operand.shape);
    const values = new Int32Array(tensor.bytes.buffer, tensor.bytes.byteOffset, tensor.size);
    forEachLine(operand, (flat, element, count, step) => {
      const source = this.#bufferWords(operand);
      if (step === 1) values.set(source.subarray(element, element + count), flat);
      else for (let i = 0; i < count; i++) values[flat + i] = source[element + i * step];
    });
    return tensor;
  }

  release(): void {
    if (this.#released) return;
    this.#released = true;
    for (const region of this.#regions) this.#engine.memory.allocator.free(region);
    if (this.#tape.stream) this.#engine.removeStream(this.#tape.stream.program);
    this.#onRelease(this);
  }

  #writeConstants(): void {
    for (const { operand, value } of this.plan.constants) this.#copyIn(operand, value);
  }

  #copyIn(operand: ActivationOperand, tensor: HostTensor): void {
    if (tensor.size !== operand.shape.reduce((a, b) => a * b, 1)) {
      throw new HalftoneError(
        "invalid_argument",
        "Cannot write an input: another shape is needed",
        {
          found: tensor.shape,
          expected: operand.shape,
        },
      );
    }
    const { bytes } = operand.dtype === "int32" ? asInt32(tensor) : tensor.cast("float32");
    const values = new Int32Array(bytes.buffer, bytes.byteOffset, tensor.size);
    const target = this.#bufferWords(operand);
    forEachLine(operand, (flat, element, count, step) => {
      if (step === 1) target.set(values.subarray(flat, flat + count), element);
      else for (let i = 0; i < count; i++) target[element + i * step] = values[flat + i];
    });
  }

  #bufferWords(operand: ActivationOperand): Int32Array {
    const { offset, bytes } = this.plan.buffers[operand.buffer];
    return this.#engine.memory.words(this.#arena + offset, bytes / 4);
  }

  #operand(
    operands: Readonly<Record<string, ActivationOperand>>,
    name: string,
    role: string,
  ): ActivationOperand {
    const operand = Object.hasOwn(operands, name) ? operands[name] : undefined;
    if (operand) return operand;
    throw new HalftoneError("invalid_argument", `Cannot find an ${role} of the plan`, {
      found: name,
      expected: Object.keys(operands).join(", "),
    });
  }

  #checkUsable(): void {
    this.#engine.checkOpen();
    if (this.#released) {
      throw new HalftoneError("closed", "Cannot use the program: it was released");
    }
  }
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

/** Hands out descriptors and addresses while a tape is encoded. */
class WeightPlacer {
  #next: number;
  readonly #byKey = new Map<string, number>();
  readonly #plan: Plan;
  readonly #engine: Engine;
  readonly #set: WasmWeightSet;
  readonly #slots: SlotPlan | undefined;
  readonly #slotAddresses: readonly [number, number];
  readonly #segments: readonly number[];

  constructor(
    plan: Plan,
    engine: Engine,
    set: WasmWeightSet,
    descriptors: number,
    slots: SlotPlan | undefined,
    slotAddresses: readonly [number, number],
  ) {
    this.#plan = plan;
    this.#engine = engine;
    this.#set = set;
    this.#next = descriptors;
    this.#slots = slots;
    this.#slotAddresses = slotAddresses;
    this.#segments = slots ? segmentOfSteps(slots) : [];
  }

  placement(): Omit<Placement, "arena" | "stepScratch"> {
    const weights = {
      unit: (weight: number, step: number) => this.#unit(weight, step),
      descriptor: (weight: number, step: number) => this.#descriptor(weight, step),
    };
    const matrixDescriptor = (matrix: Parameters<typeof describeMatrix>[0]) =>
      this.#take((words) => describeMatrix(matrix, words));
    if (!this.#slots) return { weights, matrixDescriptor };
    const { segments } = this.#slots;
    return {
      weights,
      matrixDescriptor,
      beforeStep: (step, tape) => {
        const segment = this.#segments[step];
        if (segments[segment].firstStep !== step) return;
        tape.step(TAPE_OPCODE.waitSegment, step, [segment]);
      },
      afterStep: (step, tape) => {
        const segment = this.#segments[step];
        if (segments[segment].lastStep !== step) return;
        tape.step(TAPE_OPCODE.releaseSegment, step, [segment]);
      },
    };
  }

  #unit(weight: number, step: number): number {
    const home = this.#set.home(this.#plan.weights[weight].name);
    if (home.kind === "resident") return home.address;
    const segment = this.#segments[step];
    return this.#slotAddresses[segment % 2] + this.#slots!.offsets[segment].get(weight)!;
  }

  #descriptor(weight: number, step: number): number {
    const address = this.#unit(weight, step);
    const key = `${weight}@${address}`;
    const known = this.#byKey.get(key);
    if (known !== undefined) return known;
    const place = this.#take((words) => describeWeight(this.#plan.weights[weight], address, words));
    this.#byKey.set(key, place);
    return place;
  }

  #take(describe: (words: Int32Array) => void): number {
    const address = this.#next;
    this.#next += DESCRIPTOR_BYTES;
    describe(this.#engine.memory.words(address, DESCRIPTOR_WORDS));
    return address;
  }
}
