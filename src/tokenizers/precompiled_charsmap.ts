/**
 * SentencePiece's compiled normalization rules, walked exactly as the `tokenizers` library does.
 *
 * The blob is a little-endian u32 length, a double-array trie of u32 units (Darts) and NUL-terminated UTF-8
 * replacements that the trie's leaves point into.
 */

/** The replacement rules of a `Precompiled` normalizer. */
export class PrecompiledCharsmap {
  readonly #units: Uint32Array;
  readonly #replacements: Uint8Array;
  readonly #cache = new Map<string, string>();
  readonly #segmenter = new Intl.Segmenter("en", { granularity: "grapheme" });

  /**
   * Rules from the bytes of a `precompiled_charsmap`.
   *
   * @throws RangeError if the trie does not fit into them
   */
  constructor(blob: Uint8Array) {
    const view = new DataView(blob.buffer, blob.byteOffset, blob.byteLength);
    const trieBytes = blob.byteLength >= 4 ? view.getUint32(0, true) : NaN;
    if (!(trieBytes >= 4 && trieBytes % 4 === 0 && 4 + trieBytes <= blob.byteLength)) {
      throw new RangeError(`a trie of ${trieBytes} bytes in a charsmap of ${blob.byteLength}`);
    }
    this.#units = Uint32Array.from(
      { length: trieBytes / 4 },
      (_, i) => view.getUint32(4 + 4 * i, true),
    );
    this.#replacements = blob.subarray(4 + trieBytes);
  }

  /** The normalized text: each grapheme cluster replaced as a whole, else character by character. */
  normalize(text: string): string {
    let result = "";
    for (let start = 0; start < text.length;) {
      const end = endOfRun(text, start);
      const run = text.slice(start, end);
      result += run.length === 1 ? this.#normalizeCluster(run) : this.#normalizeRun(run);
      start = end;
    }
    return result;
  }

  #normalizeRun(run: string): string {
    let result = "";
    for (const { segment } of this.#segmenter.segment(run)) {
      result += this.#normalizeCluster(segment);
    }
    return result;
  }

  #normalizeCluster(cluster: string): string {
    const cached = this.#cache.get(cluster);
    if (cached !== undefined) return cached;
    const bytes = encoder.encode(cluster);
    const whole = bytes.length < 6 ? this.#replacement(bytes) : undefined;
    const result = whole ??
      [...cluster].map((character) => this.#replacement(encoder.encode(character)) ?? character)
        .join("");
    if (this.#cache.size >= CACHE_LIMIT) this.#cache.clear();
    if (cluster.length <= CACHED_LENGTH) this.#cache.set(cluster, result);
    return result;
  }

  /** What stands for the shortest rule that `bytes` begin with. */
  #replacement(bytes: Uint8Array): string | undefined {
    const units = this.#units;
    let node = offsetOf(units[0]);
    for (const byte of bytes) {
      if (byte === 0) return undefined;
      node ^= byte;
      const unit = units[node];
      if (unit === undefined || labelOf(unit) !== byte) return undefined;
      node ^= offsetOf(unit);
      if (hasLeaf(unit)) return this.#textAt((units[node] ?? 0) & 0x7fffffff);
    }
    return undefined;
  }

  #textAt(start: number): string {
    const end = this.#replacements.indexOf(0, start);
    return decoder.decode(this.#replacements.subarray(start, end < 0 ? undefined : end));
  }
}

const encoder = new TextEncoder();
const decoder = new TextDecoder("utf-8", { ignoreBOM: true });
const CACHE_LIMIT = 10_000;
const CACHED_LENGTH = 16;

function hasLeaf(unit: number): boolean {
  return ((unit >>> 8) & 1) === 1;
}

/** The label; units that are values have the top bit set and so never equal a byte. */
function labelOf(unit: number): number {
  return (unit & 0x800000ff) >>> 0;
}

function offsetOf(unit: number): number {
  return (unit >>> 10) << ((unit & 0x200) >>> 6);
}

/**
 * The end of the run that starts at `start` and can be segmented by itself: a lone ASCII character, CR LF, or a
 * stretch around characters beyond ASCII. Segmenting whole texts would be slow.
 */
function endOfRun(text: string, start: number): number {
  if (isAscii(text, start) && isAscii(text, start + 1)) {
    return text.startsWith("\r\n", start) ? start + 2 : start + 1;
  }
  let end = start + 1;
  while (end < text.length && !(isAscii(text, end - 1) && isAscii(text, end))) end++;
  return text.startsWith("\r\n", end - 1) ? end - 1 : end;
}

/** Whether the character is ASCII; true beyond the end. */
function isAscii(text: string, index: number): boolean {
  return !(text.charCodeAt(index) > 0x7f);
}
