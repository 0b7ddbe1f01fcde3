/** A convolution band by band: rows of the output, and the rows of the input that they see. */

/** What matters of a convolution along its height; the input counts after upsampling. */
export interface Heights {
  readonly input: number;
  readonly output: number;
  readonly kernel: number;
  readonly stride: number;
  /** Rows of zeros before the input. */
  readonly top: number;
}

/** Rows of the output, the rows of the input under them, and the zeros above and below those. */
export interface Band {
  readonly first: number;
  readonly count: number;
  readonly from: number;
  readonly to: number;
  readonly top: number;
  readonly bottom: number;
}

/** As few bands of at most `most` rows as there must be, all about as high. */
export function convolutionBands(heights: Heights, most: number): Band[] {
  const count = Math.ceil(heights.output / Math.ceil(heights.output / Math.max(1, most)));
  return Array.from(
    { length: Math.ceil(heights.output / count) },
    (_, index) => bandOf(heights, index * count, count),
  );
}

function bandOf(
  { input, output, kernel, stride, top }: Heights,
  first: number,
  most: number,
): Band {
  const count = Math.min(most, output - first);
  const begin = first * stride - top;
  const end = (first + count - 1) * stride + kernel - top;
  const from = Math.min(Math.max(begin, 0), input);
  const to = Math.max(Math.min(end, input), from);
  return { first, count, from, to, top: from - begin, bottom: end - to };
}
