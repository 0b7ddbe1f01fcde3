/** The built kernels by compute capability; only the one that is asked for is read. */

interface KernelImage {
  /** The cubin or PTX, gzipped, base64. */
  readonly IMAGE: string;
}

/** Builds for single architectures; kernels-cuda/build.sh makes them. */
const CUBINS: Readonly<Record<number, () => Promise<KernelImage>>> = {
  80: () => import("./generated/kernels_sm_80.ts"),
  86: () => import("./generated/kernels_sm_86.ts"),
  89: () => import("./generated/kernels_sm_89.ts"),
  90: () => import("./generated/kernels_sm_90.ts"),
  100: () => import("./generated/kernels_sm_100.ts"),
  120: () => import("./generated/kernels_sm_120.ts"),
};
/** The least capability that PTX is for; the driver compiles it for devices without a build of their own. */
const LEAST_CAPABILITY = 80;

/** The image for a device, or null when it is too old. PTX ends with a zero byte, as the driver wants. */
export async function loadImage(capability: number): Promise<Uint8Array<ArrayBuffer> | null> {
  if (capability < LEAST_CAPABILITY) return null;
  const cubin = CUBINS[capability];
  if (cubin) return await unpackImage((await cubin()).IMAGE);
  const ptx = await unpackImage((await import("./generated/kernels_ptx.ts")).IMAGE);
  const terminated = new Uint8Array(new ArrayBuffer(ptx.length + 1));
  terminated.set(ptx);
  return terminated;
}

async function unpackImage(base64: string): Promise<Uint8Array<ArrayBuffer>> {
  const packed = Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}
