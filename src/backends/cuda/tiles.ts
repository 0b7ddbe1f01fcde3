/** The tiles of products; kernels-cuda/gemm.h. */

import type { Grid } from "./cuda_step.ts";

/** Rows and columns of a block's tile. */
export const TILE = 64;

/** The blocks of a product [count, columns]. */
export function tiles(count: number, columns: number): Grid {
  return [Math.ceil(columns / TILE), Math.ceil(count / TILE), 1];
}
