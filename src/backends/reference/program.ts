/** A plan of the reference backend: one arena, and its steps one after the other. */

import { HalftoneError } from "../../errors.ts";
import type { ActivationOperand, Plan } from "../../plan/plan.ts";
import { HostTensor } from "../../tensor/host_tensor.ts";
import { sameShape } from "../../tensor/shape.ts";
import type { Program } from "../backend.ts";
import type { MemoryLedger } from "../memory_ledger.ts";
import { runStep } from "./run_step.ts";
import { type ProgramMemory, StepContext } from "./step_context.ts";
import { contiguousView } from "./strided_view.ts";
import { forEachRow } from "./walk.ts";
import type { ReferenceWeights } from "./weights.ts";

/** Milliseconds of work after which a run lets the event loop turn. */
const YIELD_AFTER = 30;

/** What a program asks of its backend. */
export interface ProgramHost {
  readonly ledger: MemoryLedger;
  /** Throws `closed` once the backend is closed. */
  checkOpen(): void;
  /** Keeps the promise of a run, so that closing can wait for it. */
  track(run: Promise<void>): Promise<void>;
  /** Forgets the program. */
  forget(program: ReferenceProgram): void;
}

/** A compiled plan. */
export class ReferenceProgram implements Program {
  readonly plan: Plan;
  readonly #host: ProgramHost;
  #memory: ProgramMemory | null;
  #isRunning = false;

  constructor(plan: Plan, weights: ReferenceWeights, host: ProgramHost) {
    this.plan = plan;
    this.#host = host;
    const arena = new ArrayBuffer(plan.arenaBytes);
    this.#memory = {
      floats: new Float32Array(arena),
      integers: new Int32Array(arena),
      bufferOffsets: plan.buffers.map((buffer) => buffer.offset),
      weights: plan.weights.map((weight) => ({ plan: weight, stored: weights.get(weight) })),
    };
    host.ledger.take("arena", plan.arenaBytes);
    for (const { operand, value } of plan.constants) this.#store(operand, value, "constant");
  }

  write(input: string, tensor: HostTensor): void {
    this.#store(this.#operand(this.plan.inputs, input), tensor, input);
  }

  read(output: string): HostTensor {
    const operand = this.#operand(this.plan.outputs, output);
    const result = HostTensor.zeros(operand.dtype, operand.shape);
    const to = operand.dtype === "int32" ? result.toInt32() : result.toFloat32();
    const from = this.#array(operand);
    const views = [this.#view(operand), contiguousView(to, operand.shape)];
    forEachRow(operand.shape, views, (length, at, step) => {
      for (let i = 0; i < length; i++) to[at[1] + i * step[1]] = from[at[0] + i * step[0]];
    });
    return result;
  }

  run(options: { signal?: AbortSignal } = {}): Promise<void> {
    return this.#host.track(this.#run(options.signal));
  }

  release(): void {
    if (this.#memory === null) return;
    this.#memory = null;
    this.#host.ledger.free("arena", this.plan.arenaBytes);
    this.#host.forget(this);
  }

  async #run(signal?: AbortSignal): Promise<void> {
    const memory = this.#held();
    if (this.#isRunning) throw invalid("Cannot run a program that is running");
    this.#isRunning = true;
    try {
      await this.#runSteps(memory, signal);
    } finally {
      this.#isRunning = false;
    }
  }

  async #runSteps(memory: ProgramMemory, signal?: AbortSignal): Promise<void> {
    let turned = performance.now();
    for (const step of this.plan.steps) {
      if (signal?.aborted) throw new HalftoneError("aborted", "Cannot finish a run: aborted");
      this.#held();
      runStep(new StepContext(step, memory, this.#host.ledger));
      if (performance.now() - turned < YIELD_AFTER) continue;
      await turn();
      turned = performance.now();
    }
  }

  #store(operand: ActivationOperand, tensor: HostTensor, name: string): void {
    if (tensor.dtype !== operand.dtype || !sameShape(tensor.shape, operand.shape)) {
      throw invalid("Cannot write an input", {
        field: name,
        found: `${tensor.dtype} [${tensor.shape}]`,
        expected: `${operand.dtype} [${operand.shape}]`,
      });
    }
    // Inputs and constants are whole buffers, so their elements lie in order.
    const from = operand.dtype === "int32" ? tensor.toInt32() : tensor.toFloat32();
    this.#array(operand).set(from, this.#view(operand).offset);
  }

  #view(operand: ActivationOperand) {
    const { bufferOffsets } = this.#held();
    const offset = bufferOffsets[operand.buffer] / 4 + operand.offset;
    return { offset, strides: operand.strides };
  }

  #array(operand: ActivationOperand): Float32Array | Int32Array {
    const { floats, integers } = this.#held();
    return operand.dtype === "int32" ? integers : floats;
  }

  #operand(
    operands: Readonly<Record<string, ActivationOperand>>,
    name: string,
  ): ActivationOperand {
    this.#held();
    if (Object.hasOwn(operands, name)) return operands[name];
    throw invalid("Cannot find an input or output of the plan", {
      field: name,
      expected: Object.keys(operands).join(", "),
    });
  }

  /** The memory; throws `closed` when the program is released or its backend closed. */
  #held(): ProgramMemory {
    this.#host.checkOpen();
    if (this.#memory) return this.#memory;
    throw new HalftoneError("closed", "Cannot use a released program");
  }
}

function turn(): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, 0));
}

function invalid(
  message: string,
  detail: { field?: string; found?: unknown; expected?: unknown } = {},
): HalftoneError {
  return new HalftoneError("invalid_argument", message, detail);
}
