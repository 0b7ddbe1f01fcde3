/** The scheduler against Diffusers, bit for bit. */

import { test } from "node:test";
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { HalftoneError } from "../../src/errors.ts";
import {
  calculateShift,
  type FlowMatchEulerDiscreteSchedulerConfig,
  parseFlowMatchConfig,
} from "../../src/schedulers/flow_match_config.ts";
import {
  FlowMatchEulerDiscreteScheduler,
  type SetTimestepsOptions,
} from "../../src/schedulers/flow_match_euler.ts";
import { TorchGenerator } from "../../src/tensor/random.ts";

interface Table {
  options: Record<string, unknown>;
  arguments: { num_inference_steps?: number } & SetTimestepsOptions;
  sigmas?: string | number[];
  timesteps?: string | number[];
  error?: string;
}
interface Steps {
  options: Record<string, unknown>;
  perToken: boolean;
  begin: number | null;
  after: string;
}
interface Goldens {
  tables: Table[];
  constructed: Table[];
  steps: Steps[];
  scaled_noise: { begin: number | null; taken: number; result: string }[];
}

function readJson<T>(name: string): T {
  return JSON.parse(readFileSync(new URL(`../goldens/${name}`, import.meta.url), "utf8"));
}

const goldens = readJson<Goldens>("scheduler.json");

function floats(values: string | number[]): Float32Array {
  if (typeof values !== "string") return Float32Array.from(values);
  const bytes = Uint8Array.from(atob(values), (c) => c.charCodeAt(0));
  return new Float32Array(bytes.buffer);
}

function throwsCode(code: string, run: () => unknown): void {
  assert.throws(run, (error) => error instanceof HalftoneError && error.code === code);
}

function checkTable({ options, arguments: given, ...expected }: Table): void {
  const { num_inference_steps: numInferenceSteps, ...rest } = given;
  const scheduler = FlowMatchEulerDiscreteScheduler.fromConfig(options);
  const run = () => scheduler.setTimesteps({ numInferenceSteps, ...rest });
  if (expected.error) return throwsCode("invalid_argument", run);
  run();
  const label = JSON.stringify({ options, given });
  assert.deepEqual(scheduler.sigmas, floats(expected.sigmas!), label);
  assert.deepEqual(scheduler.timesteps, floats(expected.timesteps!), label);
}

test("the tables of all options equal Diffusers'", () => {
  const ordinary = readJson<Table[]>("components/scheduler.json");
  assert.ok(ordinary.length > 200 && goldens.tables.length > 100);
  for (const table of [...ordinary, ...goldens.tables]) checkTable(table);
});

test("a new scheduler holds the tables of training", () => {
  for (const { options, sigmas, timesteps } of goldens.constructed) {
    const scheduler = FlowMatchEulerDiscreteScheduler.fromConfig(options);
    assert.deepEqual(scheduler.sigmas, floats(sigmas!));
    assert.deepEqual(scheduler.timesteps, floats(timesteps!));
  }
});

test("Flux schedules have the published values", () => {
  const schedule = (tokens: number, steps: number, useDynamicShifting: boolean) => {
    const scheduler = new FlowMatchEulerDiscreteScheduler({ useDynamicShifting, shift: 3 });
    if (!useDynamicShifting) scheduler.setShift(1);
    const sigmas = Array.from({ length: steps }, (_, i) => 1 - i / steps);
    scheduler.setTimesteps({ sigmas, mu: calculateShift(tokens, scheduler.config) });
    return [...scheduler.sigmas];
  };
  assert.deepEqual(schedule(256, 4, false), [1, 0.75, 0.5, 0.25, 0]);
  const published = [
    [1024, [1, 0.8492348194122314, 0.652489423751831, 0.38494473695755005, 0]],
    [256, [1, 0.8318243026733398, 0.622459352016449, 0.354661226272583, 0]],
  ] as const;
  for (const [tokens, values] of published) {
    assert.deepEqual(schedule(tokens, 4, true), [...values]);
  }
});

test("mu is linear in the number of tokens", () => {
  const { config } = new FlowMatchEulerDiscreteScheduler();
  assert.equal(calculateShift(4096, config), 1.15);
  assert.ok(Math.abs(calculateShift(256, config) - 0.5) < 1e-15);
  assert.ok(Math.abs(calculateShift(1024, config) - 0.63) < 1e-15);
});

function drawn(seed: number): Float32Array {
  return new TorchGenerator(seed).randnValues(30);
}

test("plain, inverted, stochastic and per-token steps equal Diffusers'", () => {
  for (const { options, perToken, begin, after } of goldens.steps) {
    const scheduler = FlowMatchEulerDiscreteScheduler.fromConfig({ shift: 3, ...options });
    scheduler.setTimesteps({ numInferenceSteps: 6 });
    if (begin !== null) scheduler.setBeginIndex(begin);
    const generator = new TorchGenerator(9);
    const perTokenTimesteps = perToken ? [1000, 999, 500, 333.3, 1, 0] : undefined;
    const expected = floats(after);
    let sample = drawn(1);
    for (let i = 0; i < 4; i++) {
      const timestep = scheduler.timesteps[i + (begin ?? 0)];
      sample = scheduler.step(drawn(100 + i), timestep, sample, { generator, perTokenTimesteps });
      const label = `${JSON.stringify(options)} per token ${perToken}, step ${i}`;
      assert.deepEqual(sample, expected.slice(30 * i, 30 * i + 30), label);
    }
    assert.equal(scheduler.stepIndex, 4 + (begin ?? 0));
  }
});

test("scaleNoise takes the level of the timestep, the begin index or the current step", () => {
  for (const { begin, taken, result } of goldens.scaled_noise) {
    const scheduler = new FlowMatchEulerDiscreteScheduler({ shift: 3 });
    scheduler.setTimesteps({ numInferenceSteps: 6 });
    if (begin !== null) scheduler.setBeginIndex(begin);
    const sample = drawn(1);
    for (let i = 0; i < taken; i++) {
      scheduler.step(sample, scheduler.timesteps[i + (begin ?? 0)], sample);
    }
    const found = scheduler.scaleNoise(sample, scheduler.timesteps[2], drawn(2));
    assert.deepEqual(found, floats(result));
  }
});

test("a timestep that occurs twice means its second step", () => {
  const scheduler = new FlowMatchEulerDiscreteScheduler();
  scheduler.setTimesteps({ timesteps: [900, 500, 500, 100] });
  assert.equal(scheduler.indexForTimestep(500), 2);
  assert.equal(scheduler.indexForTimestep(100), 3);
  throwsCode("invalid_argument", () => scheduler.indexForTimestep(3));
});

test("a config takes Diffusers' defaults for absent keys and ignores keys of its own", () => {
  const expected: FlowMatchEulerDiscreteSchedulerConfig = {
    numTrainTimesteps: 1000,
    shift: 1,
    useDynamicShifting: false,
    baseShift: 0.5,
    maxShift: 1.15,
    baseImageSeqLen: 256,
    maxImageSeqLen: 4096,
    invertSigmas: false,
    shiftTerminal: null,
    useKarrasSigmas: false,
    useExponentialSigmas: false,
    useBetaSigmas: false,
    timeShiftType: "exponential",
    stochasticSampling: false,
  };
  const json = { _class_name: "FlowMatchEulerDiscreteScheduler", _diffusers_version: "0.40.0" };
  assert.deepEqual(parseFlowMatchConfig({ ...json, unknown: 1 }), expected);
  assert.deepEqual(new FlowMatchEulerDiscreteScheduler().config, expected);
});

test("options that exclude each other or make no sense are refused by name", () => {
  const bad = [
    { use_karras_sigmas: true, use_beta_sigmas: true },
    { time_shift_type: "quadratic" },
    { num_train_timesteps: 0 },
    { num_train_timesteps: 1e12 },
    { shift: "3" },
    { shift: NaN },
    { use_dynamic_shifting: 1 },
    { shift_terminal: 1 },
  ];
  for (const json of bad) throwsCode("invalid_config", () => parseFlowMatchConfig(json));
  throwsCode("unsupported", () => parseFlowMatchConfig({ _class_name: "DDIMScheduler" }));
  const both = { useKarrasSigmas: true, useExponentialSigmas: true };
  throwsCode("invalid_config", () => new FlowMatchEulerDiscreteScheduler(both));
});

test("missing, contradicting or impossible arguments of setTimesteps are refused", () => {
  const fixed = new FlowMatchEulerDiscreteScheduler();
  const bad: SetTimestepsOptions[] = [
    {},
    { numInferenceSteps: 0 },
    { numInferenceSteps: -1 },
    { numInferenceSteps: 2.5 },
    { numInferenceSteps: 1e9 },
    { sigmas: [] },
    { numInferenceSteps: 3, sigmas: [1, 0.5] },
    { sigmas: [1, 0.5], timesteps: [1000] },
    { sigmas: [1, NaN] },
  ];
  for (const options of bad) throwsCode("invalid_argument", () => fixed.setTimesteps(options));
  const dynamic = new FlowMatchEulerDiscreteScheduler({ useDynamicShifting: true });
  throwsCode("invalid_argument", () => dynamic.setTimesteps({ numInferenceSteps: 4 }));
});

test("a run starts at its begin index and forgets it with the next schedule", () => {
  const scheduler = new FlowMatchEulerDiscreteScheduler({ shift: 2 });
  assert.equal(scheduler.shift, 2);
  scheduler.setTimesteps({ numInferenceSteps: 4 });
  scheduler.setBeginIndex();
  assert.equal(scheduler.beginIndex, 0);
  scheduler.step(drawn(1), scheduler.timesteps[3], drawn(2)); // the index decides, not the timestep
  assert.equal(scheduler.stepIndex, 1);
  scheduler.setTimesteps({ numInferenceSteps: 4 });
  assert.deepEqual([scheduler.beginIndex, scheduler.stepIndex], [undefined, undefined]);
});

test("timesteps per token must divide the sample", () => {
  const scheduler = new FlowMatchEulerDiscreteScheduler();
  scheduler.setTimesteps({ numInferenceSteps: 2 });
  const options = { perTokenTimesteps: [1000, 500, 1, 0] };
  throwsCode("invalid_argument", () => scheduler.step(drawn(1), 1000, drawn(2), options));
});

test("a step beyond the end, of another length or without its generator is refused", () => {
  const scheduler = new FlowMatchEulerDiscreteScheduler();
  scheduler.setTimesteps({ numInferenceSteps: 1 });
  const sample = drawn(1);
  const first = scheduler.timesteps[0];
  throwsCode("invalid_argument", () => scheduler.step(new Float32Array(3), first, sample));
  scheduler.step(sample, first, sample);
  throwsCode("invalid_argument", () => scheduler.step(sample, first, sample));
  const stochastic = new FlowMatchEulerDiscreteScheduler({ stochasticSampling: true });
  stochastic.setTimesteps({ numInferenceSteps: 1 });
  throwsCode("invalid_argument", () => stochastic.step(sample, first, sample));
});
