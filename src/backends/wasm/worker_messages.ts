/** What the host and its workers say to each other. */

/** One weight unit outside, by its number, to copy to an address in a streaming slot. */
export interface SegmentCopy {
  readonly unit: number;
  readonly to: number;
}

/** From the host. */
export type HostMessage =
  | {
    readonly kind: "start";
    readonly module: WebAssembly.Module;
    readonly memory: WebAssembly.Memory;
    readonly control: number;
    readonly thread: number;
    readonly threads: number;
    readonly scratch: number;
    readonly stackTop: number;
  }
  | {
    readonly kind: "run";
    readonly tape: number;
    readonly steps: number;
    /** Byte offsets of the steps, to walk them one by one and time each. */
    readonly timed?: readonly number[];
  }
  | {
    readonly kind: "start_loader";
    readonly memory: WebAssembly.Memory;
    readonly control: number;
  }
  | { readonly kind: "add_unit"; readonly id: number; readonly unit: Uint8Array<ArrayBuffer> }
  | { readonly kind: "free_units"; readonly ids: readonly number[] }
  | {
    readonly kind: "add_program";
    readonly program: number;
    readonly segments: readonly (readonly SegmentCopy[])[];
  }
  | { readonly kind: "remove_program"; readonly program: number }
  | { readonly kind: "load"; readonly program: number };

/** From a worker. */
export type WorkerMessage =
  | { readonly kind: "ready" }
  | { readonly kind: "freed" }
  | { readonly kind: "done"; readonly status: number; readonly times?: Float64Array }
  | { readonly kind: "failed"; readonly reason: string };
