// What the compiler's checks (build.sh) call when a kernel does what a device would not forgive or define: its own
// library for that would write to the terminal and go on. The first find of a grid fails it.
#include <cstdint>
#include <cstdio>

#include "cuda_syntax.h"

namespace {

// How the compiler describes a place; what follows it differs by kind and is not read.
struct Place {
  const char* file;
  uint32_t line, column;
};

void found(const char* what, const Place* place) {
  static char text[256];
  if (stand_in::has_fault()) return;
  std::snprintf(text, sizeof text, "%s at %s:%u", what, place->file, place->line);
  stand_in::fault(text);
}

}  // namespace

#define FOUND(name, what, ...) \
  void __ubsan_handle_##name(const Place* place, ##__VA_ARGS__) { found(what, place); }

extern "C" {
FOUND(type_mismatch_v1, "misaligned address", uintptr_t)
FOUND(out_of_bounds, "index out of bounds", uintptr_t)
FOUND(shift_out_of_bounds, "shift out of bounds", uintptr_t, uintptr_t)
FOUND(add_overflow, "sum out of range", uintptr_t, uintptr_t)
FOUND(sub_overflow, "difference out of range", uintptr_t, uintptr_t)
FOUND(mul_overflow, "product out of range", uintptr_t, uintptr_t)
FOUND(negate_overflow, "negation out of range", uintptr_t)
FOUND(divrem_overflow, "division out of range", uintptr_t, uintptr_t)
FOUND(float_cast_overflow, "float out of the integer's range", uintptr_t)
}
