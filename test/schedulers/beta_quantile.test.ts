/** Beta quantiles against mpmath, by their defining property and by known values. */

import { test } from "node:test";
import assert from "node:assert/strict";
import { symmetricBetaQuantile } from "../../src/schedulers/beta_quantile.ts";

test("quantiles of Beta(0.6, 0.6) agree with mpmath", () => {
  // mpmath 1.3: findroot of betainc(0.6, 0.6, 0, x, regularized=True) - p at 200 bits
  const known: [number, number][] = [
    [1e-09, 1.8558824624914105e-15],
    [0.0001, 3.9983771581377217e-07],
    [0.01, 0.0008612388215429067],
    [0.1, 0.039584405588780854],
    [0.25, 0.175680378652695],
    [0.3, 0.23401700387523588],
    [0.49, 0.4861289142781603],
    [0.6, 0.6372990092467856],
    [0.75, 0.824319621347305],
    [0.9, 0.9604155944112192],
    [0.999, 0.9999814412614826],
  ];
  for (const [probability, value] of known) {
    const found = symmetricBetaQuantile(probability, 0.6);
    assert.ok(Math.abs(found / value - 1) < 3e-15, `${probability}: ${found}, not ${value}`);
  }
});

test("the quantiles of Beta(1, 1) and Beta(1/2, 1/2) have closed forms", () => {
  for (let i = 1; i < 100; i++) {
    const p = i / 100;
    assert.ok(Math.abs(symmetricBetaQuantile(p, 1) - p) < 1e-15);
    const arcsine = Math.sin(Math.PI * p / 2) ** 2;
    assert.ok(Math.abs(symmetricBetaQuantile(p, 0.5) / arcsine - 1) < 1e-13);
  }
});

test("the ends map to the ends", () => {
  assert.equal(symmetricBetaQuantile(0, 0.6), 0);
  assert.equal(symmetricBetaQuantile(1, 0.6), 1);
});
