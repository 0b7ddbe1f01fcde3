// All kernels: one translation unit, so one module. nvcc builds it for each architecture; the stand-in for
// the host.
#include "attention.h"
#include "codes.h"
#include "elementwise.h"
#include "llm_int8.h"
#include "norm.h"
#include "products.h"
#include "rounding.h"
#include "rows.h"
