/** GPT-2's alphabet: one printable character for each byte, so that byte pairs can be written as text. */

const CHARACTER_OF_BYTE = makeAlphabet();
const BYTE_OF_CHARACTER = new Map(CHARACTER_OF_BYTE.map((character, byte) => [character, byte]));
const encoder = new TextEncoder();
const decoder = new TextDecoder();

/** Printable bytes stand for themselves; the others take the characters from U+0100 on, in order. */
function makeAlphabet(): string[] {
  let next = 0x100;
  return Array.from({ length: 256 }, (_, byte) => {
    const printable = (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte !== 0xad);
    return String.fromCharCode(printable ? byte : next++);
  });
}

/** The UTF-8 bytes of a text, a character for each. */
export function encodeBytes(text: string): string {
  let result = "";
  for (const byte of encoder.encode(text)) result += CHARACTER_OF_BYTE[byte];
  return result;
}

/** The text whose bytes the characters stand for; characters outside the alphabet are dropped. */
export function decodeBytes(characters: string): string {
  const bytes = [...characters].flatMap((character) => BYTE_OF_CHARACTER.get(character) ?? []);
  return decoder.decode(Uint8Array.from(bytes));
}
