// Runs the threads of a block as fibers of the calling thread: each has a stack, and runs until it waits for others.
// Warps run as far ahead of each other as barriers let them, blocks one after another, in order, in reverse or
// shuffled: what no barrier orders comes out differently.
#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <mutex>
#include <numeric>
#include <random>
#include <vector>

#include "cuda_syntax.h"
#include "driver.h"

#ifndef __x86_64__
#include <ucontext.h>
#endif

Index3 threadIdx, blockIdx;

namespace stand_in {
namespace {

const Registration* registrations = nullptr;

constexpr size_t STACK_BYTES = 96 * 1024;
// Stacks begin at different places of their page sets, or all of them would share a few lines of the cache.
constexpr size_t STACK_STAGGER = 128, STAGGERED = 256;
constexpr unsigned WARP = 32;

#ifdef __x86_64__

// Saves what a call must keep on this stack, goes to another stack, takes it from there.
extern "C" void halftone_switch_stack(void** from, void* to);
asm(R"(
.text
.type halftone_switch_stack, @function
halftone_switch_stack:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size halftone_switch_stack, .-halftone_switch_stack
)");

struct Context {
  void* stack_pointer;
  void prepare(char* end, void (*entry)()) {
    void** top = reinterpret_cast<void**>(end);
    *--top = nullptr;  // where entry would return to: it never does; keeps the stack aligned
    *--top = reinterpret_cast<void*>(entry);
    for (int i = 0; i < 6; i++) *--top = nullptr;
    stack_pointer = top;
  }
};
void switch_context(Context& from, Context& to) {
  halftone_switch_stack(&from.stack_pointer, to.stack_pointer);
}

#else

struct Context {
  ucontext_t context;
  void prepare(char* end, void (*entry)()) {
    constexpr size_t bytes = STACK_BYTES - STACK_STAGGER * STAGGERED;
    getcontext(&context);
    context.uc_stack.ss_sp = end - bytes;
    context.uc_stack.ss_size = bytes;
    context.uc_link = nullptr;
    makecontext(&context, entry, 0);
  }
};
void switch_context(Context& from, Context& to) { swapcontext(&from.context, &to.context); }

#endif

// Counts who has arrived; the last one starts the next round.
struct Barrier {
  unsigned members = 0, arrived = 0, round = 0;
  void arrive() {
    if (++arrived < members) return;
    arrived = 0;
    round++;
  }
  void leave() {
    members--;
    if (members > 0 && arrived == members) {
      arrived = 0;
      round++;
    }
  }
};

struct Fiber {
  Context context;
  unsigned place;  // in the order
  const Barrier* barrier;
  unsigned round;  // of the barrier that it waits for
  bool has_returned;

  bool can_run() const { return !has_returned && !(barrier && barrier->round == round); }
};

struct Block {
  std::vector<Fiber> fibers;
  std::vector<char*> stacks;
  std::vector<unsigned> order;
  unsigned current = 0, running = 0;
  Context host;
  Barrier all;
  std::vector<Barrier> warps;
  std::vector<uint32_t> words[2];
  void (*run)(const void*) = nullptr;
  const void* parameters = nullptr;

  void begin(unsigned threads);
  void prepare();
  int next() const;
  void go_on();
  void finish();
  void wait(Barrier& barrier);
  ~Block() {
    for (char* stack : stacks) munmap(stack, STACK_BYTES);
  }
};

Block block;
std::mutex one_grid;
const char* first_fault = nullptr;

// What kernels call shared, of all of them; the linker's script in build.sh gathers it.
extern "C" __attribute__((visibility("hidden"))) char halftone_shared_begin[], halftone_shared_end[];

// In what order things run: as they are numbered, the other way round, or shuffled by a seed.
struct Shuffle {
  int64_t kind = settings[THREAD_ORDER];
  std::minstd_rand random{(unsigned)kind};

  std::vector<unsigned> operator()(unsigned count) {
    std::vector<unsigned> all(count);
    std::iota(all.begin(), all.end(), 0);
    if (kind == 1) std::reverse(all.begin(), all.end());
    if (kind > 1) std::shuffle(all.begin(), all.end(), random);
    return all;
  }
  // Warps, and the lanes of each.
  std::vector<unsigned> threads(unsigned count) {
    std::vector<unsigned> all;
    for (unsigned warp : (*this)(count / WARP)) {
      for (unsigned lane : (*this)(WARP)) all.push_back(warp * WARP + lane);
    }
    return all;
  }
};

void fiber_main() {
  block.run(block.parameters);
  block.finish();
}

// For grids whose blocks have so many threads, whole warps of them.
void Block::begin(unsigned threads) {
  while (stacks.size() < threads) {
    int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
    void* stack = mmap(nullptr, STACK_BYTES, PROT_READ | PROT_WRITE, flags, -1, 0);
    if (stack == MAP_FAILED) abort();
    stacks.push_back(static_cast<char*>(stack));
  }
  fibers.resize(threads);
  for (std::vector<uint32_t>& half : words) half.resize(threads);
}

void Block::prepare() {
  unsigned threads = (unsigned)fibers.size();
  warps.assign(threads / WARP, Barrier());
  all = Barrier();
  all.members = running = threads;
  for (unsigned i = 0; i < threads; i++) {
    char* end = stacks[i] + STACK_BYTES - i % STAGGERED * STACK_STAGGER;
    fibers[i].context.prepare(end, fiber_main);
    fibers[i].barrier = nullptr;
    fibers[i].has_returned = false;
    fibers[order[i]].place = i;
    warps[i / WARP].members++;
  }
  current = order.front();
  std::memset(halftone_shared_begin, 0xff, halftone_shared_end - halftone_shared_begin);  // NaN
}

// Who can run, of the same warp if possible; -1 for nobody.
int Block::next() const {
  unsigned place = fibers[current].place, first = place / WARP * WARP;
  for (unsigned i = 1; i < WARP; i++) {
    unsigned candidate = order[first + (place + i) % WARP];
    if (fibers[candidate].can_run()) return (int)candidate;
  }
  for (unsigned i = WARP; i < order.size(); i++) {
    unsigned candidate = order[(first + i) % order.size()];
    if (fibers[candidate].can_run()) return (int)candidate;
  }
  return -1;
}

// Hands over to another fiber; comes back when it is this one's turn again.
void Block::go_on() {
  Context& self = fibers[current].context;
  int found = next();
  if (found < 0) {
    if (running > 0) fault("threads wait for each other");
    switch_context(self, host);
  }
  current = threadIdx.x = (unsigned)found;
  switch_context(self, fibers[current].context);
}

void Block::finish() {
  Barrier& warp = warps[current / WARP];
  if (all.arrived > 0) fault("a thread returned while others wait for it at a barrier");
  if (warp.arrived > 0) fault("a thread returned while others of its warp wait for it");
  all.leave();
  warp.leave();
  running--;
  fibers[current].has_returned = true;
  go_on();
}

void Block::wait(Barrier& barrier) {
  Fiber& self = fibers[current];
  self.barrier = &barrier;
  self.round = barrier.round;
  barrier.arrive();
  if (!self.can_run()) go_on();
}

}  // namespace

Registration::Registration(const char* name, unsigned threads, size_t parameter_bytes,
                           void (*run)(const void*))
    : name(name), threads(threads), parameter_bytes(parameter_bytes), run(run), next(registrations) {
  registrations = this;
}

const Registration* find_kernel(const char* name) {
  for (const Registration* found = registrations; found; found = found->next) {
    if (std::strcmp(found->name, name) == 0) return found;
  }
  return nullptr;
}

void fault(const char* text) {
  if (!first_fault) first_fault = text;
}
bool has_fault() { return first_fault != nullptr; }

const char* run_grid(const Registration& kernel, Index3 grid, unsigned threads, const void* parameters) {
  std::lock_guard<std::mutex> lock(one_grid);
  first_fault = nullptr;
  block.run = kernel.run;
  block.parameters = parameters;
  block.begin(threads);
  Shuffle shuffle;
  for (unsigned index : shuffle(grid.x * grid.y * grid.z)) {
    block.order = shuffle.threads(threads);
    block.prepare();
    blockIdx = {index % grid.x, index / grid.x % grid.y, index / grid.x / grid.y};
    threadIdx = {block.current, 0, 0};
    switch_context(block.host, block.fibers[block.current].context);
  }
  return first_fault;
}

uint32_t exchange(unsigned mask, uint32_t word, unsigned lane) {
  unsigned self = block.current, first = self / WARP * WARP;
  Barrier& warp = block.warps[self / WARP];
  if (mask != 0xffffffff) fault("an exchange without all of a warp, which the stand-in does not know");
  if (warp.members < WARP) fault("an exchange with threads that have returned");
  // Two places take turns: nobody of the warp is two exchanges ahead, so none is written while it is read.
  std::vector<uint32_t>& words = block.words[warp.round % 2];
  words[self] = word;
  block.wait(warp);
  return words[first + lane];
}

}  // namespace stand_in

void __syncthreads() {
  stand_in::Block& block = stand_in::block;
  if (block.running < block.fibers.size()) stand_in::fault("a barrier after threads have returned");
  block.wait(block.all);
}
