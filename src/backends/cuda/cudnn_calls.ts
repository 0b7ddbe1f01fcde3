/** Calls into cuDNN. */

import { addressOf, textAt } from "../../runtime/foreign.ts";
import { CUDNN_STATUS, CUDNN_SYMBOLS, type CudnnFunction } from "./cudnn_symbols.ts";
import { LibraryCalls, libraryVersionText, type StatusMeaning } from "./library_calls.ts";

const MESSAGE_BYTES = 512;

/** An opened cuDNN. */
export class CudnnCalls extends LibraryCalls<CudnnFunction> {
  /** Such as 92000 for 9.20.0. */
  readonly version: number;

  /** Throws `backend_unavailable` when the library, or a function of it, is missing. */
  constructor(library: string) {
    super(library, CUDNN_SYMBOLS);
    const version = this.functions.cudnnGetVersion();
    // Before 9, 8.9.7 was 8907.
    const major = Math.floor(version / 1000);
    this.version = version < 10000 ? major * 10000 + version % 1000 : version;
  }

  /** Such as "9.20.0". */
  get versionText(): string {
    return libraryVersionText(this.version);
  }

  override meaningOf(status: number): StatusMeaning {
    if (status === CUDNN_STATUS.success) return "success";
    if (Math.floor(status / 1000) === CUDNN_STATUS.notSupportedCategory) return "not supported";
    const { hostAllocationFailed, deviceAllocationFailed } = CUDNN_STATUS;
    const isMemory = status === hostAllocationFailed || status === deviceAllocationFailed;
    return isMemory ? "out of memory" : "failed";
  }

  /** The status and, where the library kept it, the condition that was not met. */
  override textOf(status: number): string {
    const name = `${textAt(this.functions.cudnnGetErrorString(status))} (${status})`;
    const message = new Uint8Array(new ArrayBuffer(MESSAGE_BYTES));
    this.functions.cudnnGetLastErrorString(addressOf(message), message.length);
    const text = new TextDecoder().decode(message.subarray(0, message.indexOf(0)));
    return text === "" ? name : `${name}: ${text}`;
  }
}
