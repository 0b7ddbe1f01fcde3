/** Rows of a benchmark in a process of their own: what fails, ends or takes too long takes no other with it. */

import assert from "node:assert/strict";
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { type Outcome, RowLog } from "../../bench/row_log.ts";
import { type RowsOptions, runRows } from "../../bench/row_process.ts";

/** Answers a row with its number and that of the process, but for those that it is told of. */
const SERVER = `
  while read row; do
    case $row in
      $1) echo '{"failed":"out of memory"}' ;;
      $2) echo "no more" >&2; exit 3 ;;
      $3) exec sleep 60 ;;
      *) echo "noise"; echo "{\\"row\\":$row,\\"process\\":$$}" ;;
    esac
  done`;

/** Rows of a server; what was found of each, and which were started. */
async function outcomes(
  count: number,
  special: { readonly fails?: number; readonly ends?: number; readonly waits?: number },
  options: Partial<RowsOptions> = {},
) {
  const { fails = -1, ends = -1, waits = -1 } = special;
  const found: (Outcome & { row?: number; process?: number })[] = [];
  const started: number[] = [];
  await runRows(count, {
    command: ["sh", "-c", SERVER, "server", ...[fails, ends, waits].map(String)],
    isOver: () => false,
    starts: (index) => void started.push(index),
    record: (index, outcome) => {
      assert.equal(index, found.length);
      found.push(outcome);
      return Promise.resolve();
    },
    ...options,
  });
  return { found, started };
}

test("rows share a process until one fails, and the next have a new one", async () => {
  const { found } = await outcomes(4, { fails: 1 });
  assert.deepEqual(found.map(({ row }) => row), [0, undefined, 2, 3]);
  assert.equal(found[1]!.failed, "out of memory");
  assert.equal(found[2]!.process, found[3]!.process);
  assert.notEqual(found[0]!.process, found[2]!.process);
});

test("a row that ends its process says so with what it wrote, and the others go on", async () => {
  const { found } = await outcomes(3, { ends: 1 });
  assert.equal(found[1]!.failed, "no more; it ended with code 3");
  assert.deepEqual(found.map(({ row }) => row), [0, undefined, 2]);
});

test("a row that takes too long is stopped, and the others go on", async () => {
  const { found } = await outcomes(3, { waits: 0 }, { rowSeconds: 0.5 });
  assert.match(found[0]!.failed!, /not done after 0\.5 s/);
  assert.deepEqual(found.map(({ row }) => row), [undefined, 1, 2]);
});

test("rows that would start after the time are left out and say so", async () => {
  let asked = 0;
  const { found, started } = await outcomes(4, {}, { isOver: () => ++asked > 2 });
  assert.deepEqual(started, [0, 1]);
  assert.deepEqual(found.map(({ row }) => row), [0, 1, undefined, undefined]);
  const [third, fourth] = found.slice(2).map(({ failed }) => failed);
  assert.deepEqual([third, fourth], Array(2).fill("not started: the time was used up"));
});

test("the file has every row after each, with the reason of those that are to come", async () => {
  const folder = mkdtempSync(join(tmpdir(), "halftone-rows-"));
  try {
    const path = join(folder, "found.json");
    const kinds = [["step", "a"], ["step", "b"], ["picture", "c"]] as const;
    const measure = () => Promise.reject(new Error("not here"));
    const rows = kinds.map(([kind, name]) => ({ kind, name, measure }));
    const log = new RowLog({ device: "one" }, rows, path);
    const read = () => JSON.parse(readFileSync(path, "utf8"));
    const failed = "not measured: the run was cut off";
    await log.record(0, { seconds: { step: 2 } });
    assert.deepEqual(read(), {
      device: "one",
      rows: [
        { kind: "step", name: "a", seconds: { step: 2 }, timeOfFirst: 1 },
        { kind: "step", name: "b", failed },
        { kind: "picture", name: "c", failed },
      ],
    });
    await log.record(1, { seconds: { step: 3 } });
    await log.record(2, { failed: "lost" });
    assert.equal(JSON.stringify(read()), JSON.stringify(JSON.parse(log.text())));
    const [, second, third] = read().rows;
    assert.deepEqual([second.timeOfFirst, third.failed], [1.5, "lost"]);
    assert.deepEqual(readdirSync(folder), ["found.json"]);
  } finally {
    rmSync(folder, { recursive: true });
  }
});
