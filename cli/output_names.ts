/** The names of the files that a command writes. */

/** One name per image: `out.png` alone, `out-0.png`, `out-1.png` ... for several. */
export function outputNames(output: string, count: number): string[] {
  if (count === 1) return [output];
  const [stem, extension] = split(output);
  return Array.from({ length: count }, (_, index) => `${stem}-${index}${extension}`);
}

function split(path: string): [stem: string, extension: string] {
  const dot = path.lastIndexOf(".");
  const slash = Math.max(path.lastIndexOf("/"), path.lastIndexOf("\\"));
  return dot > slash + 1 ? [path.slice(0, dot), path.slice(dot)] : [path, ""];
}
