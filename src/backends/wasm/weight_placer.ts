/** Addresses and descriptors of the weights of a program, resident or streamed. */

import type { Plan } from "../../plan/plan.ts";
import type { Placement } from "./encode.ts";
import type { Engine } from "./engine.ts";
import { segmentOfSteps, type SlotPlan } from "../slot_plan.ts";
import { TAPE_OPCODE } from "./tape_writer.ts";
import { describeMatrix, describeWeight, DESCRIPTOR_WORDS } from "./weight_layout.ts";
import type { WasmWeightSet } from "./weight_set.ts";

const DESCRIPTOR_BYTES = DESCRIPTOR_WORDS * 4;

/** Hands out descriptors and addresses while a tape is encoded. */
export class WeightPlacer {
  #next: number;
  readonly #byKey = new Map<string, number>();
  readonly #plan: Plan;
  readonly #engine: Engine;
  readonly #set: WasmWeightSet;
  readonly #slots: SlotPlan | undefined;
  readonly #slotAddresses: readonly [number, number];
  readonly #segments: readonly number[];

  /** Descriptors are written from `descriptors` on; `slots` is given when the weights stream. */
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

  /** The parts of a placement that concern weights. */
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
