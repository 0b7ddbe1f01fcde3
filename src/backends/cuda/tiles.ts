/** The tiles of products; kernels-cuda/gemm.h. */

import type { Grid } from "./cuda_step.ts";

/** Rows and columns of a block's tile. */
const TILE = 64;
/** Rows of x up to which a quantized weight is read as it is stored: each of its tiles is read once. */
export const FEW_ROWS = TILE;

/** The blocks of a product [count, columns], for each matrix of a batch. */
export function tiles(count: number, columns: number, batch = 1): Grid {
  return [Math.ceil(columns / TILE) * Math.ceil(count / TILE), batch, 1];
}
