/** A section's result as text. */

import type { Comparison, Measured, Ratio } from "./measure.ts";
import type { SectionResult } from "./section.ts";

/** Lines for people. */
export function reportText(
  { comparisons = [], figures = [], missing = [] }: SectionResult,
): string {
  const lines = [
    ...comparisons.flatMap(comparisonLines),
    ...figures.map(({ name, value, unit }) => `  ${name}: ${number(value)} ${unit}`),
    ...missing.map(({ name, reason }) => `  MISSING ${name}: ${reason}`),
  ];
  return lines.join("\n");
}

function comparisonLines({ name, work, contenders, ratios, missing }: Comparison): string[] {
  return [
    `  ${name}`,
    ...contenders.map((contender) => contenderLine(contender, work?.unit)),
    ...ratios.map(ratioLine),
    ...missing.map((one) => `    MISSING ${one.name}: ${one.reason}`),
  ];
}

function contenderLine(
  { name, version, wall, processor, rate, distance }: Measured,
  unit: string | undefined,
): string {
  const milliseconds = (seconds: number) => number(seconds * 1000);
  const parts = [
    `${milliseconds(wall.median)} ms (${milliseconds(wall.least)} to ${milliseconds(wall.most)})`,
    `processor ${milliseconds(processor.median)} ms`,
  ];
  if (rate !== undefined) parts.push(`${number(rate)} G${unit}/s`);
  if (distance !== undefined) parts.push(`distance ${distance.toExponential(1)}`);
  return `    ${name} ${version}: ${parts.join(", ")}`;
}

function ratioLine({ subject, peer, wall, processor, least, most }: Ratio): string {
  const spread = `${number(least)} to ${number(most)}`;
  return `    ${subject} against ${peer}: ${number(wall)}x (${spread}), processor ${
    number(processor)
  }x`;
}

function number(value: number): string {
  if (Math.abs(value) >= 1000) return Math.round(value).toLocaleString("en-US");
  return value.toPrecision(3);
}
