/** Slices of a weight's rows that are unpacked or dequantized for a product. */

/** Bytes of a slice: it should stay in the second-level cache. */
const SLICE_BYTES = 16 * 1024 * 1024;
/** Rows of a slice come in these, so that outputs of all slices begin on 512 bytes. */
const SLICE_UNIT = 128;

/** Rows of a slice of a weight: as few slices as the cache allows, all about as large. */
export function sliceRows(
  { rows, columns }: { readonly rows: number; readonly columns: number },
  elementBytes: number,
): number {
  const most = Math.max(SLICE_UNIT, Math.floor(SLICE_BYTES / (elementBytes * columns)));
  const each = Math.ceil(rows / Math.ceil(rows / most));
  return Math.min(rows, Math.ceil(each / SLICE_UNIT) * SLICE_UNIT);
}
