/**
 * The histogram of |x| that ModelOpt's HistogramCalibrator collects over many tensors, and the range that it
 * finds in it. 2048 bins reach to the largest |x| of the first tensor; where a later one reaches further, bins
 * of the same width are added. Sums are float32's, in its order.
 *
 * Bins are bounded here, as they are not there: were there more than MOST_BINS, neighbours are put together.
 * Counts are exact here; there they are float32, which stops counting at 2^24.
 */

const FIRST_BINS = 2048;

/** 256 KiB a histogram; reached where a later tensor is 16 times as large as the first. */
const MOST_BINS = 2 ** 15;

const fround = Math.fround;

/** A histogram of magnitudes. */
export class ActivationHistogram {
  #counts: Float64Array = new Float64Array(FIRST_BINS);
  /** Of a bin; 0 while only zeros were seen. */
  #width = 0;
  /** The upper end of the last bin. */
  #top = 0;

  /** How many bins there are. */
  get bins(): number {
    return this.#counts.length;
  }

  /** Counts the values of a tensor, which must be finite. */
  collect(values: Float32Array): void {
    const largest = largestMagnitude(values);
    if (this.#width === 0 && largest > 0) this.#start(largest);
    if (largest > this.#top) this.#grow(largest);
    if (this.#width === 0) this.#counts[0] += values.length;
    else this.#count(values);
  }

  /** The lower end of the bin where so many percent of all values have been counted. */
  percentile(percent: number): number {
    let total = 0;
    for (const count of this.#counts) total += count;
    let share = 0;
    let bin = 0;
    for (; bin < this.bins; bin++) {
      share += this.#counts[bin] / total;
      if (share >= percent / 100) break;
    }
    return fround(bin * this.#width);
  }

  #start(largest: number): void {
    this.#width = fround(largest / FIRST_BINS);
    this.#top = largest;
  }

  #grow(largest: number): void {
    while (fround(largest / this.#width) > MOST_BINS) this.#mergeNeighbours();
    const counts = new Float64Array(Math.ceil(fround(largest / this.#width)));
    counts.set(this.#counts);
    this.#counts = counts;
    // The last of torch.arange(0, largest + width, width).
    const ends = Math.ceil(fround(largest + this.#width) / this.#width);
    this.#top = fround((ends - 1) * this.#width);
  }

  #mergeNeighbours(): void {
    const { length } = this.#counts;
    const merged = new Float64Array(Math.ceil(length / 2));
    this.#counts.forEach((count, bin) => merged[bin >> 1] += count);
    this.#counts = merged;
    this.#width *= 2;
  }

  #count(values: Float32Array): void {
    const counts = this.#counts, bins = counts.length, top = this.#top;
    for (let index = 0; index < values.length; index++) {
      const size = Math.abs(values[index]);
      if (size > top) continue; // which rounding may leave above the last bin
      const bin = Math.trunc(fround(fround(size * bins) / top));
      counts[bin === bins ? bins - 1 : bin]++;
    }
  }
}

function largestMagnitude(values: Float32Array): number {
  let largest = 0;
  for (let index = 0; index < values.length; index++) {
    const size = Math.abs(values[index]);
    if (size > largest) largest = size;
  }
  return largest;
}
