/**
 * Writes the figures of docs/performance.md from the results of `deno task bench`; with `--check` it only
 * fails when the page is not what it would write.
 */

import { fileURLToPath } from "node:url";
import { type Bar, BARS, goal, wantsLess } from "../bench/suite/bars.ts";
import { CORES, estimatedSeconds, measuredRates, PICTURES } from "../bench/suite/estimate.ts";
import type { Comparison, Measured } from "../bench/suite/measure.ts";
import { Results, type StoredResult } from "../bench/suite/results.ts";
import { SECTIONS } from "../bench/suite/sections.ts";
import { markdownTable, writeGeneratedPage } from "./generated_page.ts";

const RUNTIMES = ["deno", "bun"] as const;
const NOT_MEASURED = "not measured";

const results = new Results(fileURLToPath(new URL("../bench/results", import.meta.url)));

function shown(value: number): string {
  if (Math.abs(value) >= 1000) return Math.round(value).toLocaleString("en-US");
  return String(Number(value.toPrecision(3)));
}

/** Ratios stand alone, as in "1.3x"; other units after a space. */
function withUnit(value: number, unit: string): string {
  return unit === "x" ? `${shown(value)}x` : `${shown(value)} ${unit}`;
}

/** Seconds as people say them. */
function duration(seconds: number): string {
  if (seconds < 120) return `${shown(seconds)} s`;
  const minutes = seconds / 60;
  return minutes < 120 ? `${shown(minutes)} min` : `${shown(minutes / 60)} h`;
}

function goalText(bar: Bar, value: Bar["aim"] | Bar["must"]): string {
  const goals = bar.runtimes.map((runtime) => goal(value, runtime));
  const texts = goals.map((one) => one === null ? "reported" : withUnit(one, bar.unit));
  return [...new Set(texts)].join(", ");
}

function valueText(bar: Bar, runtime: string): string {
  if (!bar.runtimes.includes(runtime)) return "";
  const value = bar.value(results, runtime);
  return value === undefined ? NOT_MEASURED : withUnit(value, bar.unit);
}

/** Where the worst runtime of a bar stands. */
function standing(bar: Bar): string {
  const reached = (value: number, wanted: number | null): boolean =>
    wanted === null || (wantsLess(bar) ? value <= wanted : value >= wanted);
  const steps = bar.runtimes.map((runtime) => {
    const value = bar.value(results, runtime);
    if (value === undefined) return -1;
    if (reached(value, goal(bar.aim, runtime))) return 2;
    return reached(value, goal(bar.must, runtime)) ? 1 : 0;
  });
  return ["", "missed", "must", "aim"][Math.min(...steps) + 1]!;
}

function barTable(): string {
  return markdownTable([
    ["bar", "Deno", "Bun", "must", "aim", "reached"],
    ...BARS.map((bar) => [
      bar.about,
      ...RUNTIMES.map((runtime) => valueText(bar, runtime)),
      goalText(bar, bar.must),
      goalText(bar, bar.aim),
      standing(bar),
    ]),
  ]);
}

function estimateTable(): string {
  const rows = RUNTIMES.flatMap((runtime) => {
    const rates = measuredRates(results, runtime);
    return PICTURES.map((picture) => [
      picture.name,
      runtime,
      ...CORES.map((cores) =>
        rates ? duration(estimatedSeconds(picture, rates, cores)) : NOT_MEASURED
      ),
    ]);
  });
  return markdownTable([
    ["picture", "runtime", ...CORES.map((cores) => `${cores} cores`)],
    ...rows,
  ]);
}

function eachResult(): { section: string; runtime: string; result: StoredResult }[] {
  return Object.keys(SECTIONS).flatMap((section) =>
    RUNTIMES.flatMap((runtime) => {
      const result = results.section(section, runtime);
      return result ? [{ section, runtime, result }] : [];
    })
  );
}

/** Where the results come from; several lines when they were not taken on one machine. */
function machines(): string {
  const lines = eachResult().map(({ result: { machine } }) =>
    `${machine.processor}, ${machine.processors} processors, ${machine.platform}, ${machine.runtime}`
  );
  return [...new Set(lines)].map((line) => `- ${line}`).join("\n") || `- ${NOT_MEASURED}`;
}

function measuredRow(section: string, runtime: string, comparison: Comparison, one: Measured) {
  const milliseconds = (seconds: number) => shown(seconds * 1000);
  const { wall, processor } = one;
  return [
    comparison.name,
    runtime,
    `${one.name} ${one.version.replace(/^(deno|bun) /, "")}`,
    `${milliseconds(wall.median)} (${milliseconds(wall.least)} to ${milliseconds(wall.most)})`,
    milliseconds(processor.median),
    one.rate === undefined ? "" : `${shown(one.rate)} G${comparison.work?.unit}/s`,
    `\`${section}\``,
  ];
}

function measuredTable(): string {
  const rows = eachResult().flatMap(({ section, runtime, result }) =>
    (result.comparisons ?? []).flatMap((comparison) => [
      ...comparison.contenders.map((one) => measuredRow(section, runtime, comparison, one)),
      ...comparison.missing.map(({ name, reason }) => [
        comparison.name,
        runtime,
        name,
        `missing: ${reason.replaceAll("|", "/")}`,
        "",
        "",
        `\`${section}\``,
      ]),
    ])
  );
  const head = ["what", "runtime", "who", "milliseconds", "of processors", "rate", "section"];
  return rows.length > 0 ? markdownTable([head, ...rows]) : "Nothing is measured yet.";
}

function figureTable(): string {
  const rows = eachResult().flatMap(({ section, runtime, result }) =>
    (result.figures ?? []).map(({ name, value, unit }) => [
      name,
      runtime,
      withUnit(value, unit),
      `\`${section}\``,
    ])
  );
  return rows.length > 0 ? markdownTable([["what", "runtime", "value", "section"], ...rows]) : "";
}

const generated = [
  "## Where we stand",
  "Taken on:",
  machines(),
  barTable(),
  "## What a picture should take",
  "An estimate, not a measurement: the operations of FLUX.1's own plans (T5, transformer, decoder) over the rates " +
  "measured on this machine with 4-bit weights and int8 activations, for cores like these, each adding what the second " +
  "one added here. Reading weights from memory by many cores at once is not counted.",
  estimateTable(),
  "## All that was measured",
  measuredTable(),
  figureTable(),
].join("\n\n");

writeGeneratedPage("docs/performance.md", "tools/generate_performance_doc.ts", generated);
