#!/usr/bin/env sh
# Builds the stand-in driver: stand_in/build.sh OUTPUT. Needs a C++17 compiler (CXX, g++ by default).
set -e
cd "$(dirname "$0")/.."
# No contraction: every product and sum is rounded, as the kernels say. No aliasing rules, as on the device.
flags="-std=c++17 -O2 -ftree-slp-vectorize -ffp-contract=off -fno-strict-aliasing -fPIC -fvisibility=hidden -Wall -Wextra"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# Checked as the kernels run; what is found goes to stand_in/checks.cpp.
checks="-fsanitize=alignment,bounds,shift,signed-integer-overflow,integer-divide-by-zero,float-cast-overflow"
${CXX:-g++} $flags $checks -fdata-sections -c -x c++ kernels.cu -o "$work/kernels.o"
${CXX:-g++} $flags -c stand_in/checks.cpp -o "$work/checks.o"
${CXX:-g++} $flags -c stand_in/fibers.cpp -o "$work/fibers.o"
${CXX:-g++} $flags -c stand_in/driver.cpp -o "$work/driver.o"
# Loops over whole products, which -O3 turns into vectors.
${CXX:-g++} $flags -O3 -I. -c stand_in/cublas_lt.cpp -o "$work/cublas_lt.o"
${CXX:-g++} $flags -I. -c stand_in/cudnn.cpp -o "$work/cudnn.o"
# Shared memory is what kernels declare within functions.
cat >"$work/shared_memory.ld" <<END
SECTIONS {
  halftone_shared : {
    halftone_shared_begin = .;
    *kernels.o(.bss._ZZ*)
    halftone_shared_end = .;
  }
}
INSERT AFTER .bss;
END
${CXX:-g++} -shared -Wl,-T,"$work/shared_memory.ld" -pthread "$work"/*.o -o "$work/library"
mv "$work/library" "$1"
