/** What calibration collects: the largest |x| that the inputs of linear layers reached. */

import type { Program } from "../backends/backend.ts";
import { watchedWeight } from "../ops/watch_inputs.ts";
import { moduleOf } from "../quantization/quantizer.ts";

/** The largest |x| of each module's input, by component and by the module's name. */
export type InputAmax = Readonly<Record<string, Readonly<Record<string, number>>>>;

/** Ranges of one component, over all runs. */
export class InputRanges {
  readonly #amax: Record<string, number> = {};

  /** By the module's name. */
  get amax(): Readonly<Record<string, number>> {
    return { ...this.#amax };
  }

  /** A program that reports to this after each run. */
  watched(program: Program): Program {
    return {
      plan: program.plan,
      write: (input, tensor) => program.write(input, tensor),
      read: (output) => program.read(output),
      release: () => program.release(),
      run: async (options) => {
        await program.run(options);
        this.#collect(program);
      },
    };
  }

  #collect(program: Program): void {
    for (const output of Object.keys(program.plan.outputs)) {
      const weight = watchedWeight(output);
      if (weight === null) continue;
      const module = moduleOf(weight);
      for (const value of program.read(output).toFloat32()) {
        this.#amax[module] = Math.max(this.#amax[module] ?? 0, value);
      }
    }
  }
}
