/** Runs of consecutive weights cut at the ends of their groups. */

/** Calls `visit` with each group's part of the run [first, first + count), as indices into the run. */
export function forEachGroup(
  first: number,
  count: number,
  groupSize: number,
  visit: (group: number, begin: number, end: number) => void,
): void {
  let begin = 0;
  while (begin < count) {
    const group = Math.floor((first + begin) / groupSize);
    const end = Math.min(count, (group + 1) * groupSize - first);
    visit(group, begin, end);
    begin = end;
  }
}
