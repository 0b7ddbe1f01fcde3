/** The backends that tests can open on this machine, cuda over its stand-in driver. */

import { BACKEND_NAMES, type BackendOptions } from "../../src/backends/select.ts";
import { openStandIn } from "../cuda/stand_in.ts";

/**
 * The options that open each backend, for the file of tests named. Without a C++ compiler there is no
 * stand-in; cuda is then left out, and the reason printed.
 */
export function backendsHere(user: string): (BackendOptions & { backend: string })[] {
  const standIn = openStandIn(user);
  const isMissing = typeof standIn === "string";
  if (isMissing) console.log(`${user}: cuda is skipped: ${standIn}`);
  const libraries = isMissing ? {} : standIn.libraries;
  return BACKEND_NAMES.filter((name) => name !== "cuda" || !isMissing)
    .map((backend) => ({ backend, ...libraries }));
}
