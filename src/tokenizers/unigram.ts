/** The Unigram model of SentencePiece (Kudo 2018): the most probable division of a word into pieces. */

/** What an unknown character costs beyond the least probable piece. */
const UNKNOWN_PENALTY = 10;
const CACHE_LIMIT = 10_000;
const CACHED_LENGTH = 64;

/** A vocabulary of pieces with log-probabilities. */
export class Unigram {
  readonly #pieces: readonly string[];
  readonly #scores: Float64Array;
  readonly #ids: ReadonlyMap<string, number>;
  readonly #unknownId: number;
  readonly #unknownScore: number;
  readonly #trie = new Trie();
  readonly #cache = new Map<string, readonly number[]>();

  /**
   * A model of these pieces.
   *
   * @param vocab pieces and their scores; a piece's index is its id
   * @param unknownId the id for characters that no piece covers
   */
  constructor(vocab: readonly (readonly [string, number])[], unknownId: number) {
    this.#pieces = vocab.map(([piece]) => piece);
    this.#scores = Float64Array.from(vocab, ([, score]) => score);
    this.#ids = new Map(this.#pieces.map((piece, id) => [piece, id]));
    this.#unknownId = unknownId;
    this.#unknownScore = this.#scores.reduce((a, b) => Math.min(a, b)) - UNKNOWN_PENALTY;
    for (const [piece, id] of this.#ids) this.#trie.insert(piece, id);
  }

  /** The ids of the pieces. */
  get ids(): ReadonlyMap<string, number> {
    return this.#ids;
  }

  /** The piece of an id; empty beyond the vocabulary. */
  piece(id: number): string {
    return this.#pieces[id] ?? "";
  }

  /** The ids of a word's best division; neighbouring unknown characters become one unknown. */
  encode(word: string): readonly number[] {
    const cached = this.#cache.get(word);
    if (cached) return cached;
    const ids = this.#fuseUnknown(word, this.#bestPath(word));
    if (word.length <= CACHED_LENGTH) {
      if (this.#cache.size >= CACHE_LIMIT) this.#cache.clear();
      this.#cache.set(word, ids);
    }
    return ids;
  }

  /** Viterbi: for each end the best piece that ends there, by where it starts and its id. */
  #bestPath(word: string): { starts: Int32Array; ids: Int32Array } {
    const scores = new Float64Array(word.length + 1);
    const starts = new Int32Array(word.length + 1).fill(-1);
    const ids = new Int32Array(word.length + 1);
    const offer = (start: number, end: number, id: number, score: number) => {
      if (starts[end] >= 0 && !(score > scores[end])) return; // strictly better replaces
      scores[end] = score;
      starts[end] = start;
      ids[end] = id;
    };
    for (let start = 0; start < word.length;) {
      const next = start + (word.codePointAt(start)! > 0xffff ? 2 : 1);
      let covered = false; // whether some piece is this one character
      this.#trie.prefixes(word, start, (end, id) => {
        offer(start, end, id, scores[start] + this.#scores[id]);
        covered ||= end === next;
      });
      if (!covered) offer(start, next, this.#unknownId, scores[start] + this.#unknownScore);
      start = next;
    }
    return { starts, ids };
  }

  #fuseUnknown(word: string, path: { starts: Int32Array; ids: Int32Array }): number[] {
    const reversed: number[] = [];
    for (let end = word.length; end > 0;) {
      let start = path.starts[end];
      let id = path.ids[end];
      if (id === this.#unknownId) {
        while (start > 0 && path.ids[start] === id) start = path.starts[start];
        id = this.#ids.get(word.slice(start, end)) ?? id;
      }
      reversed.push(id);
      end = start;
    }
    return reversed.reverse();
  }
}

/** A prefix tree over UTF-16 units in one map, keyed by node and unit. */
class Trie {
  readonly #children = new Map<number, number>();
  readonly #values: number[] = [-1];

  insert(key: string, value: number): void {
    let node = 0;
    for (let i = 0; i < key.length; i++) {
      const edge = node * 65536 + key.charCodeAt(i);
      let child = this.#children.get(edge);
      if (child === undefined) {
        child = this.#values.push(-1) - 1;
        this.#children.set(edge, child);
      }
      node = child;
    }
    if (node > 0) this.#values[node] = value;
  }

  /** Visits the keys that `text` has at `start`, shortest first, with where they end. */
  prefixes(text: string, start: number, visit: (end: number, value: number) => void): void {
    let node: number | undefined = 0;
    for (let i = start; i < text.length; i++) {
      node = this.#children.get(node * 65536 + text.charCodeAt(i));
      if (node === undefined) return;
      if (this.#values[node] >= 0) visit(i + 1, this.#values[node]);
    }
  }
}
