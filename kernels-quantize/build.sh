#!/bin/sh
# Builds the module and writes it as TypeScript; see README.md.
# CARGO and RUSTC choose the toolchain, CARGO_TARGET_DIR the place of the build.
set -eu
cd "$(dirname "$0")"
export RUSTC_BOOTSTRAP=1
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-target}"
TARGET=wasm32-unknown-unknown
RUSTFLAGS="-C target-feature=+atomics,+bulk-memory,+mutable-globals,+simd128 -C linker=${WASM_LD:-wasm-ld} \
  -C link-arg=--import-memory -C link-arg=--shared-memory -C link-arg=--max-memory=1073741824 \
  -C link-arg=--export=__stack_pointer -C link-arg=--export=__heap_base \
  -C link-arg=-zstack-size=65536 -C link-arg=--strip-all" \
  "${CARGO:-cargo}" build --release --target $TARGET -Z build-std=core
deno run -A ../tools/embed_quantize_wasm.ts "$CARGO_TARGET_DIR/$TARGET/release/halftone_quantize.wasm"
