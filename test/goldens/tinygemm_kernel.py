"""PyTorch's CUDA kernel that lays int4 weights out for tinygemm, compiled for the CPU from PyTorch's own source.

_convert_weight_to_int4pack exists for GPUs only. Its kernel is index arithmetic without anything of a GPU, so the text of
`matrix_to_m16n8k16_Bint4_layout` in aten/src/ATen/native/cuda/int4mm.cu compiles as C++ when the few names that it uses
are defined; every thread of the grid is then a turn of a loop. The text is read from a checkout of PyTorch, not kept here.
"""

import ctypes
import subprocess
import tempfile
from pathlib import Path

import torch

KERNEL = "aten/src/ATen/native/cuda/int4mm.cu"
NAME = "__global__ void matrix_to_m16n8k16_Bint4_layout("

BEFORE = """
#include <cstdint>
#include <type_traits>
#define __global__
template <typename T> constexpr bool isPowerOf2(T v) { return v && !(v & (v - 1)); }
struct Index { uint32_t x, y; };
static Index blockIdx, threadIdx;
namespace at {
template <typename T> struct RestrictPtrTraits {};
template <typename T, int Rank> struct Row {
  T* data; const int64_t* sizes;
  auto operator[](int64_t index) const {
    int64_t stride = 1;
    for (int axis = 1; axis < Rank; axis++) stride *= sizes[axis];
    return Row<T, Rank - 1>{data + index * stride, sizes + 1};
  }
  int64_t size(int axis) const { return sizes[axis]; }
};
template <typename T> struct Row<T, 1> {
  T* data; const int64_t* sizes;
  T& operator[](int64_t index) const { return data[index]; }
};
template <typename T, int Rank, template <typename> class Traits> using PackedTensorAccessor32 = Row<T, Rank>;
}
"""

AFTER = """
extern "C" void pack(uint8_t* in, const int64_t* in_sizes, int32_t* out, const int64_t* out_sizes) {
  for (blockIdx.y = 0; blockIdx.y < out_sizes[0]; blockIdx.y++)
    for (blockIdx.x = 0; blockIdx.x < out_sizes[1]; blockIdx.x++)
      for (threadIdx.x = 0; threadIdx.x < 32; threadIdx.x++)
        matrix_to_m16n8k16_Bint4_layout<8>({in, in_sizes}, {out, out_sizes});
}
"""


def kernel_text(pytorch):
    """The template, from its head to the brace in the first column that closes it."""
    source = (Path(pytorch) / KERNEL).read_text()
    head = source.rindex("template", 0, source.index(NAME))
    return source[head:source.index("\n}\n", head) + 3]


def compile_kernel(pytorch):
    folder = Path(tempfile.mkdtemp())
    (folder / "pack.cpp").write_text(BEFORE + kernel_text(pytorch) + AFTER)
    subprocess.run(["g++", "-O1", "-w", "-shared", "-fPIC", "-std=c++17", "pack.cpp", "-o", "pack.so"], cwd=folder, check=True)
    return ctypes.CDLL(str(folder / "pack.so")).pack


def register(pytorch):
    """Gives the CPU the op, with the layout of CUDA."""
    pack = compile_kernel(pytorch)

    def convert(weight, inner_k_tiles):
        assert weight.dtype == torch.uint8 and weight.is_contiguous() and inner_k_tiles == 8
        rows, half = weight.shape
        out = torch.empty((-(-rows // 8), half * 2 // 128, 32, 4), dtype=torch.int32)
        sizes = lambda tensor: (ctypes.c_int64 * tensor.dim())(*tensor.shape)
        pack(ctypes.c_void_p(weight.data_ptr()), sizes(weight), ctypes.c_void_p(out.data_ptr()), sizes(out))
        return out

    library = torch.library.Library("aten", "IMPL")
    library.impl("_convert_weight_to_int4pack", convert, "CPU")
    return library  # the op goes when it does
