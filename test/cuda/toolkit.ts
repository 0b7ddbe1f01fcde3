/** Tools of CUDA's toolkit, where they are installed. */

import { existsSync } from "node:fs";
import process from "node:process";
import { pythonPackageFolders } from "../../src/backends/cuda/library_paths.ts";

/** Folders of tools in Python's packages: those of NVIDIA, and those that Triton brings along. */
const PACKAGE_FOLDERS = [
  "nvidia/cu13/bin",
  "nvidia/cuda_nvcc/bin",
  "nvidia/cuda_nvdisasm/bin",
  "triton/backends/nvidia/bin",
];

/** The path of a tool: from PATH, CUDA_HOME or the packages of Pythons on the path; null where it is none. */
export async function findTool(name: string): Promise<string | null> {
  const { PATH = "", CUDA_HOME } = process.env;
  const packages = (await pythonPackageFolders())
    .flatMap((folder) => PACKAGE_FOLDERS.map((inside) => `${folder}/${inside}`));
  const folders = [...PATH.split(":"), ...CUDA_HOME ? [`${CUDA_HOME}/bin`] : [], ...packages];
  return folders.map((folder) => `${folder}/${name}`).find(existsSync) ?? null;
}
