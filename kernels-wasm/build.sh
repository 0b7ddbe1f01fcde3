#!/bin/sh
# Builds the module twice (plain and relaxed SIMD) and writes both as TypeScript; see README.md.
# CARGO and RUSTC choose the toolchain, CARGO_TARGET_DIR the place of the build.
set -eu
cd "$(dirname "$0")"
export RUSTC_BOOTSTRAP=1
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-target}"
TARGET=wasm32-unknown-unknown

build() { # name, extra target features
  RUSTFLAGS="-C target-feature=+atomics,+bulk-memory,+mutable-globals,+simd128$2 \
    -C linker=${WASM_LD:-wasm-ld} -C llvm-args=-pre-RA-sched=source \
    -C link-arg=--import-memory -C link-arg=--shared-memory -C link-arg=--max-memory=4294967296 \
    -C link-arg=--export=__stack_pointer -C link-arg=--export=__heap_base \
    -C link-arg=-zstack-size=65536 -C link-arg=--strip-all" \
    "${CARGO:-cargo}" build --release --target $TARGET -Z build-std=core
  cp "$CARGO_TARGET_DIR/$TARGET/release/halftone_kernels.wasm" "$CARGO_TARGET_DIR/$1.wasm"
}

build plain ""
build relaxed ",+relaxed-simd"
deno run -A ../tools/embed_wasm.ts "$CARGO_TARGET_DIR/plain.wasm" "$CARGO_TARGET_DIR/relaxed.wasm"
