/** Calls into cuBLASLt. */

import { textAt } from "../../runtime/foreign.ts";
import { CUBLAS_LT_SYMBOLS, CUBLAS_STATUS, type CublasLtFunction } from "./cublas_lt_symbols.ts";
import { LibraryCalls, libraryVersionText, type StatusMeaning } from "./library_calls.ts";

/** An opened cuBLASLt. */
export class CublasLtCalls extends LibraryCalls<CublasLtFunction> {
  /** Such as 130101 for 13.1.1. */
  readonly version: number;

  /** Throws `backend_unavailable` when the library, or a function of it, is missing. */
  constructor(library: string) {
    super(library, CUBLAS_LT_SYMBOLS);
    this.version = this.functions.cublasLtGetVersion();
  }

  /** Such as "13.1.1". */
  get versionText(): string {
    return libraryVersionText(this.version);
  }

  override meaningOf(status: number): StatusMeaning {
    switch (status) {
      case CUBLAS_STATUS.success:
        return "success";
      case CUBLAS_STATUS.allocationFailed:
        return "out of memory";
      case CUBLAS_STATUS.notSupported:
        return "not supported";
      default:
        return "failed";
    }
  }

  override textOf(status: number): string {
    const [name, text] = (["cublasLtGetStatusName", "cublasLtGetStatusString"] as const)
      .map((ask) => textAt(this.functions[ask](status)));
    return `${name} (${status}): ${text}`;
  }
}
