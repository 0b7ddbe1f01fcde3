#!/usr/bin/env sh
# Builds all kernels for every architecture and embeds them: build.sh NVCC PTXAS. nvcc (13 or newer) writes PTX
# once; ptxas (12.9) assembles it, so that drivers from CUDA 12 on load the result.
set -e
cd "$(dirname "$0")"
nvcc=$1
ptxas=$2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$nvcc" -O3 -ptx -arch=compute_80 -o "$work/new.ptx" kernels.cu
# What nvcc 13 writes is PTX 8.0 but for its version line and a hint to tools.
sed '/\.pragma "used_bytes_mask/d; s/^\.version .*/.version 8.0/; /^\/\//d' "$work/new.ptx" >"$work/kernels.body"
{ echo "// PTX of kernels-cuda"; cat "$work/kernels.body"; } >"$work/kernels_ptx"
for architecture in 80 86 89 90 100 120; do
  "$ptxas" -O3 -arch=sm_$architecture "$work/kernels_ptx" -o "$work/kernels_sm_$architecture"
done
cd ..
deno run -A tools/embed_cuda.ts "$work"
