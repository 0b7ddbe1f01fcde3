/** How regions of a backend's memory are aligned: as the plan's buffers are. */

import { ALIGNMENT } from "../plan/place.ts";

export { ALIGNMENT };

/** Rounds up to a whole number of alignment units. */
export function aligned(bytes: number): number {
  return Math.ceil(bytes / ALIGNMENT) * ALIGNMENT;
}
