//! The float microkernel, in the assembler of WebAssembly: what a compiler makes of the same loop is up to
//! a quarter slower. Three things decide, and none can be said in Rust:
//!
//! - Eight k per round, in the order written here. Compilers chain the steps of each sum, so that all values
//!   of B live at once and registers spill.
//! - Addresses of A by `i32.add`, not by a load's constant offset: V8 checks bounds once per offset and width,
//!   JavaScriptCore takes two more instructions for the offset of a splat. Those of B by constant offsets: one less
//!   in JavaScriptCore, as many in V8.
//! - Twelve sums, two columns of B and one value of A: fifteen vectors, what engines leave free on x86.
//!
//! `bench/microkernels.ts` times this shape beside others. Every sum takes its k in order, so any shape would
//! give the same bits.

// acc += a * b, fused in the relaxed build where the machine can.
#[cfg(target_feature = "relaxed-simd")]
core::arch::global_asm!(
    ".macro multiply_add a, b, acc",
    "local.get \\a",
    "local.get \\b",
    "local.get \\acc",
    "f32x4.relaxed_madd",
    "local.set \\acc",
    ".endm",
);
#[cfg(not(target_feature = "relaxed-simd"))]
core::arch::global_asm!(
    ".macro multiply_add a, b, acc",
    "local.get \\a",
    "local.get \\b",
    "f32x4.mul",
    "local.get \\acc",
    "f32x4.add",
    "local.set \\acc",
    ".endm",
);

// Locals: 0 strip, 1 panel, 2 count, 3 c, 4 stride, 5 add; 6 where a loop ends; 7 to 18 sums, row by row;
// 19 and 20 two vectors of B; 21 a value of A in all lanes.
core::arch::global_asm!(
    r#"
.macro load_b offset, to
    local.get 1
    v128.load \offset:p2align=0
    local.set \to
.endm

.macro splat_a offset
    local.get 0
    .if \offset
    i32.const \offset
    i32.add
    .endif
    v128.load32_splat 0:p2align=0
    local.set 21
.endm

.macro row offset, first, second
    splat_a \offset
    multiply_add 21, 19, \first
    multiply_add 21, 20, \second
.endm

// One k: six values of A times two vectors of B, at these byte offsets.
.macro step a0, a1, a2, a3, a4, a5, b0, b1
    splat_a \a0
    load_b \b0, 19
    multiply_add 21, 19, 7
    load_b \b1, 20
    multiply_add 21, 20, 8
    row \a1, 9, 10
    row \a2, 11, 12
    row \a3, 13, 14
    row \a4, 15, 16
    row \a5, 17, 18
.endm

// Moves on by a number of k; goes round again unless the strip ends.
.macro next strip_bytes, panel_bytes
    local.get 1
    i32.const \panel_bytes
    i32.add
    local.set 1
    local.get 0
    i32.const \strip_bytes
    i32.add
    local.tee 0
    local.get 6
    i32.ne
    br_if 0
.endm

// strip + 24 * (count & mask)
.macro set_end mask
    local.get 0
    local.get 2
    i32.const \mask
    i32.and
    i32.const 24
    i32.mul
    i32.add
    local.tee 6
    local.get 0
    i32.eq
    br_if 0
.endm

.macro add_to_row first, second
    local.get 3
    local.get 3
    v128.load 0:p2align=0
    local.get \first
    f32x4.add
    v128.store 0:p2align=0
    local.get 3
    local.get 3
    v128.load 16:p2align=0
    local.get \second
    f32x4.add
    v128.store 16:p2align=0
    next_row
.endm

.macro store_row first, second
    local.get 3
    local.get \first
    v128.store 0:p2align=0
    local.get 3
    local.get \second
    v128.store 16:p2align=0
    next_row
.endm

.macro next_row
    local.get 3
    local.get 4
    i32.const 2
    i32.shl
    i32.add
    local.set 3
.endm

    .section .text.multiply_6x8,"",@
    .hidden multiply_6x8
    .globl multiply_6x8
    .type multiply_6x8,@function
multiply_6x8:
    .functype multiply_6x8 (i32, i32, i32, i32, i32, i32) -> ()
    .local i32, v128, v128, v128, v128, v128, v128, v128, v128, v128, v128, v128, v128, v128, v128, v128
    block
    set_end -8
    loop
    step 0, 4, 8, 12, 16, 20, 0, 16
    step 24, 28, 32, 36, 40, 44, 32, 48
    step 48, 52, 56, 60, 64, 68, 64, 80
    step 72, 76, 80, 84, 88, 92, 96, 112
    step 96, 100, 104, 108, 112, 116, 128, 144
    step 120, 124, 128, 132, 136, 140, 160, 176
    step 144, 148, 152, 156, 160, 164, 192, 208
    step 168, 172, 176, 180, 184, 188, 224, 240
    next 192, 256
    end_loop
    end_block
    block
    set_end 7
    loop
    step 0, 4, 8, 12, 16, 20, 0, 16
    next 24, 32
    end_loop
    end_block
    local.get 5
    if
    add_to_row 7, 8
    add_to_row 9, 10
    add_to_row 11, 12
    add_to_row 13, 14
    add_to_row 15, 16
    add_to_row 17, 18
    else
    store_row 7, 8
    store_row 9, 10
    store_row 11, 12
    store_row 13, 14
    store_row 15, 16
    store_row 17, 18
    end_if
    end_function
"#
);

extern "C" {
    /// C [6, 8] (rows `stride` apart) = (C when `add`) + strip [count][6] x panel [count][8].
    pub fn multiply_6x8(
        strip: *const f32,
        panel: *const f32,
        count: usize,
        c: *mut f32,
        stride: usize,
        add: bool,
    );
}
