/** Tokens that are matched as a whole before a text is tokenized: `<|endoftext|>`, `</s>` and the like. */

/** A token matched as a whole. */
export interface AddedToken {
  /** The text that is matched. */
  readonly content: string;
  /** Whether it only matches between characters that are no part of a word. */
  readonly singleWord: boolean;
  /** Whether it takes the white space before it along. */
  readonly leftStrip: boolean;
  /** Whether it takes the white space after it along. */
  readonly rightStrip: boolean;
  /** Whether it is matched in the normalized text, else in the text as given. */
  readonly normalized: boolean;
  /** The id its declaration gives it; the vocabulary's own comes first. */
  readonly id?: number;
}

/** The properties of a special token that is given as a mere text. */
export const PLAIN_TOKEN: Omit<AddedToken, "content"> = {
  singleWord: false,
  leftStrip: false,
  rightStrip: false,
  normalized: false,
};

/** The tokens that have an id: the vocabulary's, or the declared one for tokens added to it. */
export function withIds(
  tokens: readonly AddedToken[],
  vocab: ReadonlyMap<string, number>,
): (AddedToken & { id: number })[] {
  return tokens.flatMap((token) => {
    const id = vocab.get(token.content) ?? token.id;
    return id === undefined ? [] : [{ ...token, id }];
  });
}

/** A stretch of text between added tokens, or an added token's id. */
export type Section = string | number;

/** Cuts texts at added tokens: leftmost matches, the longest where several start together. */
export class AddedTokenSplitter {
  readonly #pattern: RegExp | undefined;
  readonly #tokens: ReadonlyMap<string, AddedToken & { id: number }>;

  /** A splitter at these tokens; of two with the same content the later counts. */
  constructor(tokens: readonly (AddedToken & { id: number })[]) {
    this.#tokens = new Map(tokens.map((token) => [token.content, token]));
    const contents = [...this.#tokens.keys()].sort((a, b) => b.length - a.length);
    if (contents.length > 0) {
      this.#pattern = new RegExp(contents.map(escapePattern).join("|"), "gu");
    }
  }

  /** The sections of a text, in order; empty stretches are left out. */
  split(text: string): Section[] {
    if (!this.#pattern) return text === "" ? [] : [text];
    const sections: Section[] = [];
    let done = 0;
    for (const match of text.matchAll(this.#pattern)) {
      const token = this.#tokens.get(match[0])!;
      const end = match.index + match[0].length;
      if (token.singleWord && touchesWord(text, match.index, end)) continue;
      const start = token.leftStrip ? skipSpaceBefore(text, match.index) : match.index;
      if (start > done) sections.push(text.slice(done, start));
      sections.push(token.id);
      done = token.rightStrip ? skipSpaceAfter(text, end) : end;
    }
    if (done < text.length) sections.push(text.slice(done));
    return sections;
  }
}

const WORD = /[\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\p{Join_Control}]/u;
const SPACE = /\p{White_Space}/u;

function touchesWord(text: string, start: number, end: number): boolean {
  const before = [...text.slice(Math.max(0, start - 2), start)].at(-1) ?? "";
  const after = String.fromCodePoint(text.codePointAt(end) ?? 0x20);
  return WORD.test(before) || WORD.test(after);
}

function skipSpaceBefore(text: string, end: number): number {
  let start = end;
  while (start > 0 && SPACE.test(text[start - 1])) start--;
  return start;
}

function skipSpaceAfter(text: string, start: number): number {
  let end = start;
  while (end < text.length && SPACE.test(text[end])) end++;
  return end;
}

function escapePattern(text: string): string {
  return text.replace(/[\\^$.*+?()[\]{}|/]/g, "\\$&");
}
