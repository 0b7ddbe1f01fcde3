/** Where NVIDIA's libraries may lie: on the loader's path, in CUDA's toolkit, in the packages of Pythons. */

import { listFolder, realPath, statPath } from "../../runtime/files.ts";
import { environmentVariable, homeFolder } from "../../runtime/system.ts";

/**
 * cuBLASLt: names and paths to try in turn. A driver starts libraries of its own major version and of those
 * before, so those come first.
 */
export function cublasLtLibraries(driverVersion: number): Promise<string[]> {
  const versions = driverVersion >= 13000 ? [13, 12] : [12, 13];
  return libraryPaths(
    versions.map((version) => `libcublasLt.so.${version}`),
    ["nvidia/cu13/lib", "nvidia/cublas/lib", "nvidia/cu12/lib"],
  );
}

/** cuDNN: names and paths to try in turn. */
export function cudnnLibraries(): Promise<string[]> {
  return libraryPaths(["libcudnn.so.9"], ["nvidia/cudnn/lib"]);
}

/**
 * Parts of NVIDIA's compiler that cuDNN's kernels need, where cuDNN comes from a wheel: the compiler asks for
 * them by name, and the loader does not look into wheels.
 */
export async function compilerParts(cudnnLibrary: string): Promise<string[]> {
  const [, wheels] = /^(.*)\/cudnn\/lib\/[^/]*$/.exec(cudnnLibrary) ?? [];
  if (wheels === undefined) return [];
  const folders = [`${wheels}/cu13/lib`, `${wheels}/cuda_nvrtc/lib`];
  const names = await Promise.all(folders.map(namesIn));
  return folders.flatMap((folder, index) =>
    names[index]!.filter((name) => /^libnvrtc-builtins\.so\.\d+\.\d+$/.test(name))
      .map((name) => `${folder}/${name}`)
  );
}

/** The names as they are, for the loader, then where they lie; `wheels` are folders below Python's packages. */
async function libraryPaths(
  names: readonly string[],
  wheels: readonly string[],
): Promise<string[]> {
  const packages = await pythonPackageFolders();
  const ofWheels = packages.flatMap((folder) => wheels.map((wheel) => `${folder}/${wheel}`));
  const folders = [...toolkitFolders(), ...ofWheels];
  const paths = names.flatMap((name) => folders.map((folder) => `${folder}/${name}`));
  const found = await Promise.all(paths.map(isFile));
  return [...names, ...paths.filter((_, index) => found[index])];
}

function toolkitFolders(): string[] {
  const toolkits = ["CUDA_HOME", "CUDA_PATH"].map(environmentVariable);
  return [...toolkits, "/usr/local/cuda"].flatMap((toolkit) => toolkit ? [`${toolkit}/lib64`] : []);
}

/** Where the Pythons here keep packages; some of these folders may not exist. */
export async function pythonPackageFolders(): Promise<string[]> {
  return (await Promise.all((await pythonPrefixes()).map(packageFolders))).flat();
}

/** The environment that is active, the Pythons on the path, those of the user and of the system. */
async function pythonPrefixes(): Promise<string[]> {
  const active = ["VIRTUAL_ENV", "CONDA_PREFIX"].map(environmentVariable);
  const home = homeFolder();
  const own = home === undefined ? [] : [`${home}/.local`];
  const all = [...active, ...await prefixesOnPath(), ...own, "/usr/local", "/usr"];
  return [...new Set(all.filter((prefix) => prefix !== undefined && prefix !== ""))] as string[];
}

/** Of /a/bin/python3 these are /a, and what it is a link into. */
async function prefixesOnPath(): Promise<string[]> {
  const pythons = (environmentVariable("PATH") ?? "").split(":").map((bin) => `${bin}/python3`);
  const found: string[] = [];
  for (const python of pythons) {
    if (!await isFile(python)) continue;
    for (const path of [python, await realPath(python)]) {
      found.push(path.replace(/\/[^/]*\/[^/]*$/, ""));
    }
  }
  return found;
}

/** Where a Python keeps packages. */
async function packageFolders(prefix: string): Promise<string[]> {
  const versions = (await namesIn(`${prefix}/lib`)).filter((name) => name.startsWith("python3"));
  return versions.flatMap((version) =>
    ["site-packages", "dist-packages"].map((packages) => `${prefix}/lib/${version}/${packages}`)
  );
}

async function namesIn(folder: string): Promise<string[]> {
  try {
    return await listFolder(folder);
  } catch {
    return []; // not there, or not to be read: no library for us either way
  }
}

async function isFile(path: string): Promise<boolean> {
  try {
    return (await statPath(path))?.kind === "file";
  } catch {
    return false;
  }
}
