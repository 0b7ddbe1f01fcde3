//! The integer microkernels: 4 rows of codes of x times 8 columns of integer weights. Both operands come as
//! 32-bit words, four bytes or two int16 of consecutive k each, so one loop and one packing serve both
//! kinds of product:
//!
//! - narrow: int8 x times weights of 0 to 127, sixteen products and eight sums of 16 bits at once. The sums
//!   begin at -center times the sum of x, so that they count the weight as if it lay around 0; what they
//!   pass on the way may wrap, the encoder sees to it that their end fits (src/backends/wasm/integer_weight.ts).
//! - wide: int16 times int16, eight products and four sums of 32 bits at once. The plain build has only
//!   these; the integers are the same.
//!
//! A run is the k that share a scale per column; at its end the integers become floats. Eight sums, one vector of
//! rows with one of its words in all lanes, two vectors of columns: 12 vectors, and larger tiles spill in
//! both engines. In assembler for the reasons given in microkernel.rs.

/// Rows and columns of a micro tile.
pub const ROWS: usize = 4;
pub const COLUMNS: usize = 8;
/// Bytes of a step: a word of each row, a word of each column.
pub const STRIP_STEP: usize = ROWS * 4;
pub const PANEL_STEP: usize = COLUMNS * 4;
/// Steps of a run are a multiple of this.
pub const STEP_UNIT: usize = 4;

/// c [ROWS][COLUMNS] += the products of `runs` runs. Vectors per run lie run after run:
/// strip [step][ROWS] words; panel [step][COLUMNS] words; scales [run][COLUMNS], what an integer is worth;
/// starts [run][ROWS] words, what narrow sums begin at; offsets [run][COLUMNS], added to every weight;
/// row_sums [run][ROWS], the sum of x - zero; column_sums [run][COLUMNS], minus the sum of the weight's
/// integers; zeros [ROWS], the codes of x that mean 0.
pub type Kernel = unsafe extern "C" fn(
    strip: *const u8,
    panel: *const u8,
    runs: usize,
    steps_per_run: usize,
    c: *mut f32,
    scales: *const f32,
    starts: *const u32,
    offsets: *const f32,
    row_sums: *const f32,
    column_sums: *const f32,
    zeros: *const f32,
);

macro_rules! kernels {
    ($($(#[$about:meta])* $name:ident)*) => {
        extern "C" {
            $($(#[$about])* pub fn $name(
                strip: *const u8,
                panel: *const u8,
                runs: usize,
                steps_per_run: usize,
                c: *mut f32,
                scales: *const f32,
                starts: *const u32,
                offsets: *const f32,
                row_sums: *const f32,
                column_sums: *const f32,
                zeros: *const f32,
            );)*
        }
    };
}

kernels! {
    /// c of int32 += the wide sums of all runs.
    integer_exact
    /// c += sums * scale.
    integer_wide
    /// c += sums * scale + row sum * offset.
    integer_wide_offset
}
#[cfg(target_feature = "relaxed-simd")]
kernels! {
    integer_narrow
    integer_narrow_offset
    /// c += (sums + zero * column sum) * scale. What is in brackets lies below 2^24 and so is exact.
    integer_narrow_zero
    integer_narrow_offset_zero
}

// a * b + c: a and b, then multiply, then c, then add; fused in the relaxed build where the machine can.
#[cfg(target_feature = "relaxed-simd")]
core::arch::global_asm!(
    ".macro integer_multiply",
    ".endm",
    ".macro integer_add",
    "f32x4.relaxed_madd",
    ".endm",
);
#[cfg(not(target_feature = "relaxed-simd"))]
core::arch::global_asm!(
    ".macro integer_multiply",
    "f32x4.mul",
    ".endm",
    ".macro integer_add",
    "f32x4.add",
    ".endm",
);

// Locals: 0 strip, 1 panel, 2 runs, 3 steps, 4 c, 5 scales, 6 starts, 7 offsets, 8 row sums, 9 column sums,
// 10 zeros; 11 rounds left, 12 an address; 13 to 20 sums, row by row; 21 rows, 22 and 23 columns, 24 a row's
// word in all lanes; 25 ones of 16 bits.
core::arch::global_asm!(
    r#"
.macro integer_address base, offset
    local.get \base
    .if \offset
    i32.const \offset
    i32.add
    .endif
.endm

.macro integer_load base, offset, to
    integer_address \base, \offset
    v128.load 0:p2align=0
    local.set \to
.endm

.macro integer_splat base, offset
    integer_address \base, \offset
    v128.load32_splat 0:p2align=0
.endm

.macro integer_move base, bytes
    local.get \base
    i32.const \bytes
    i32.add
    local.set \base
.endm

.macro narrow_product sum, columns
    local.get \sum
    local.get 24
    local.get \columns
    i16x8.relaxed_dot_i8x16_i7x16_s
    i16x8.add
    local.set \sum
.endm

.macro wide_product sum, columns
    local.get \sum
    local.get 24
    local.get \columns
    i32x4.dot_i16x8_s
    i32x4.add
    local.set \sum
.endm

.macro integer_row kind, a, b, c, d, low, high
    local.get 21
    local.get 21
    i8x16.shuffle \a, \b, \c, \d, \a, \b, \c, \d, \a, \b, \c, \d, \a, \b, \c, \d
    local.set 24
    \kind\()_product \low, 22
    \kind\()_product \high, 23
.endm

.macro panel_load offset, to
    local.get 1
    v128.load \offset:p2align=0
    local.set \to
.endm

// Of the panel by constant offsets, for the reasons in microkernel.rs.
.macro integer_step kind, rows, low, high
    integer_load 0, \rows, 21
    panel_load \low, 22
    panel_load \high, 23
    integer_row \kind, 0, 1, 2, 3, 13, 14
    integer_row \kind, 4, 5, 6, 7, 15, 16
    integer_row \kind, 8, 9, 10, 11, 17, 18
    integer_row \kind, 12, 13, 14, 15, 19, 20
.endm

// All steps of a run, eight at a time.
.macro integer_run kind
    local.get 3
    i32.const 4
    i32.and
    if
    integer_step \kind, 0, 0, 16
    integer_step \kind, 16, 32, 48
    integer_step \kind, 32, 64, 80
    integer_step \kind, 48, 96, 112
    integer_move 0, 64
    integer_move 1, 128
    end_if
    local.get 3
    i32.const 3
    i32.shr_u
    local.tee 11
    if
    loop
    integer_step \kind, 0, 0, 16
    integer_step \kind, 16, 32, 48
    integer_step \kind, 32, 64, 80
    integer_step \kind, 48, 96, 112
    integer_step \kind, 64, 128, 144
    integer_step \kind, 80, 160, 176
    integer_step \kind, 96, 192, 208
    integer_step \kind, 112, 224, 240
    integer_move 0, 128
    integer_move 1, 256
    local.get 11
    i32.const -1
    i32.add
    local.tee 11
    br_if 0
    end_loop
    end_if
.endm

.macro narrow_begin_row offset, low, high
    integer_splat 6, \offset
    local.tee \low
    local.set \high
.endm

.macro narrow_begin
    narrow_begin_row 0, 13, 14
    narrow_begin_row 4, 15, 16
    narrow_begin_row 8, 17, 18
    narrow_begin_row 12, 19, 20
    integer_move 6, 16
.endm

.macro wide_begin_row low, high
    v128.const 0, 0, 0, 0
    local.tee \low
    local.set \high
.endm

.macro wide_begin
    wide_begin_row 13, 14
    wide_begin_row 15, 16
    wide_begin_row 17, 18
    wide_begin_row 19, 20
.endm

.macro narrow_total sum
    local.get \sum
    local.get 25
    i32x4.dot_i16x8_s
    f32x4.convert_i32x4_s
.endm

.macro wide_total sum
    local.get \sum
    f32x4.convert_i32x4_s
.endm

.macro integer_address_of_c offset
    integer_address 4, \offset
    local.tee 12
.endm

// c += total * 22 (+ row sum * 23); the total grows by zero * 21 first.
.macro integer_finish kind, offset, zero, row, sum, to
    integer_address_of_c \to
    .if \offset
    integer_splat 8, \row
    local.get 23
    integer_multiply
    .endif
    .if \zero
    integer_splat 10, \row
    local.get 21
    integer_multiply
    .endif
    \kind\()_total \sum
    .if \zero
    integer_add
    .endif
    local.get 22
    integer_multiply
    local.get 12
    v128.load 0:p2align=0
    integer_add
    .if \offset
    integer_add
    .endif
    v128.store 0:p2align=0
.endm

.macro integer_finish_half kind, offset, zero, at, s0, s1, s2, s3, c0, c1, c2, c3
    integer_load 5, \at, 22
    .if \offset
    integer_load 7, \at, 23
    .endif
    .if \zero
    integer_load 9, \at, 21
    .endif
    integer_finish \kind, \offset, \zero, 0, \s0, \c0
    integer_finish \kind, \offset, \zero, 4, \s1, \c1
    integer_finish \kind, \offset, \zero, 8, \s2, \c2
    integer_finish \kind, \offset, \zero, 12, \s3, \c3
.endm

.macro integer_function name
    .section .text.\name,"",@
    .hidden \name
    .globl \name
    .type \name,@function
\name:
    .functype \name (i32, i32, i32, i32, i32, i32, i32, i32, i32, i32, i32) -> ()
    .local i32, i32, v128, v128, v128, v128, v128, v128, v128, v128, v128, v128, v128, v128, v128
.endm

// The ones are made of what is never 0, so that no engine takes them for a constant and makes it anew for each use.
.macro integer_kernel name, kind, offset, zero
    integer_function \name
    local.get 2
    i32.const 0
    i32.ne
    i16x8.splat
    local.set 25
    loop
    \kind\()_begin
    integer_run \kind
    integer_finish_half \kind, \offset, \zero, 0, 13, 15, 17, 19, 0, 32, 64, 96
    integer_finish_half \kind, \offset, \zero, 16, 14, 16, 18, 20, 16, 48, 80, 112
    integer_move 5, 32
    .if \offset
    integer_move 7, 32
    integer_move 8, 16
    .endif
    .if \zero
    integer_move 9, 32
    .endif
    local.get 2
    i32.const -1
    i32.add
    local.tee 2
    br_if 0
    end_loop
    end_function
.endm

.macro integer_add_to_c sum, to
    integer_address_of_c \to
    local.get 12
    v128.load 0:p2align=0
    local.get \sum
    i32x4.add
    v128.store 0:p2align=0
.endm

    integer_function integer_exact
    local.get 2
    local.get 3
    i32.mul
    local.set 3
    wide_begin
    integer_run wide
    integer_add_to_c 13, 0
    integer_add_to_c 14, 16
    integer_add_to_c 15, 32
    integer_add_to_c 16, 48
    integer_add_to_c 17, 64
    integer_add_to_c 18, 80
    integer_add_to_c 19, 96
    integer_add_to_c 20, 112
    end_function

    integer_kernel integer_wide, wide, 0, 0
    integer_kernel integer_wide_offset, wide, 1, 0
"#
);
#[cfg(target_feature = "relaxed-simd")]
core::arch::global_asm!(
    "integer_kernel integer_narrow, narrow, 0, 0",
    "integer_kernel integer_narrow_offset, narrow, 1, 0",
    "integer_kernel integer_narrow_zero, narrow, 0, 1",
    "integer_kernel integer_narrow_offset_zero, narrow, 1, 1",
);
