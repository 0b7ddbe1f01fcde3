// Runs the threads of a block as fibers of the calling thread: each has a stack, and a barrier hands over to the
// next one until all have arrived.
#include <sys/mman.h>

#include <cstdlib>
#include <mutex>
#include <vector>

#include "cuda_syntax.h"

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

struct Block {
  std::vector<Context> fibers;
  std::vector<char*> stacks;
  std::vector<unsigned> next;  // a ring of the fibers that still run
  unsigned current = 0, previous = 0, running = 0;
  Context host;
  Barrier all;
  std::vector<Barrier> warps;
  std::vector<uint32_t> words[2];
  void (*run)(const void*) = nullptr;
  const void* parameters = nullptr;

  void prepare(unsigned threads);
  void go_on();
  void finish();
  void wait(Barrier& barrier);
  ~Block() {
    for (char* stack : stacks) munmap(stack, STACK_BYTES);
  }
};

Block block;
std::mutex one_grid;

void fiber_main() {
  block.run(block.parameters);
  block.finish();
}

void Block::prepare(unsigned threads) {
  while (stacks.size() < threads) {
    int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
    void* stack = mmap(nullptr, STACK_BYTES, PROT_READ | PROT_WRITE, flags, -1, 0);
    if (stack == MAP_FAILED) abort();
    stacks.push_back(static_cast<char*>(stack));
  }
  fibers.resize(threads);
  next.resize(threads);
  for (std::vector<uint32_t>& half : words) half.resize(threads);
  warps.assign((threads + WARP - 1) / WARP, Barrier());
  all = Barrier();
  all.members = running = threads;
  for (unsigned i = 0; i < threads; i++) {
    char* end = stacks[i] + STACK_BYTES - i % STAGGERED * STACK_STAGGER;
    fibers[i].prepare(end, fiber_main);
    next[i] = (i + 1) % threads;
    warps[i / WARP].members++;
  }
  current = 0;
  previous = threads - 1;
}

// Hands over to the next fiber; comes back when it is this one's turn again.
void Block::go_on() {
  unsigned self = current;
  previous = self;
  current = next[self];
  if (current == self) return;
  threadIdx.x = current;
  switch_context(fibers[self], fibers[current]);
}

void Block::finish() {
  unsigned self = current;
  all.leave();
  warps[self / WARP].leave();
  if (--running == 0) {
    switch_context(fibers[self], host);
  }
  next[previous] = next[self];
  current = next[self];
  threadIdx.x = current;
  switch_context(fibers[self], fibers[current]);
}

void Block::wait(Barrier& barrier) {
  unsigned round = barrier.round;
  barrier.arrive();
  while (barrier.round == round) go_on();
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

void run_grid(const Registration& kernel, Index3 grid, unsigned threads, const void* parameters) {
  std::lock_guard<std::mutex> lock(one_grid);
  block.run = kernel.run;
  block.parameters = parameters;
  for (unsigned z = 0; z < grid.z; z++) {
    for (unsigned y = 0; y < grid.y; y++) {
      for (unsigned x = 0; x < grid.x; x++) {
        block.prepare(threads);
        blockIdx = {x, y, z};
        threadIdx = {0, 0, 0};
        switch_context(block.host, block.fibers[0]);
      }
    }
  }
}

uint32_t exchange(uint32_t word, unsigned lane) {
  unsigned self = block.current, first = self / WARP * WARP;
  Barrier& warp = block.warps[self / WARP];
  // Two places take turns: nobody of the warp is two exchanges ahead, so none is written while it is read.
  std::vector<uint32_t>& words = block.words[warp.round % 2];
  words[self] = word;
  block.wait(warp);
  return words[first + lane];
}

}  // namespace stand_in

void __syncthreads() { stand_in::block.wait(stand_in::block.all); }
