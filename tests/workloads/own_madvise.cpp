// Everything that looks like a purge and is none: its own madvise(DONTNEED, FREE), munmap and mmap(PROT_NONE)
// on its own mappings, thread stacks that glibc trims at thread exit, and callocs of recycled blocks, which
// jemalloc zeroes by MADV_DONTNEED. All of it beside real purges. Prints how often it did each: own_*,
// threads, callocs.
#include <jemalloc/jemalloc.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "workload.hpp"

namespace {

/// No advice: mapped over by what nobody may touch.
constexpr int decommit = -1;

void give_back_own_mapping(size_t size, int advice) {
  void* memory = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) {
    workload::die("mmap");
  }
  workload::touch(memory, size);
  if (advice == decommit) {
    if (mmap(memory, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) != memory) {
      workload::die("mmap over");
    }
  } else if (madvise(memory, size, advice) != 0) {
    workload::die("madvise");
  }
  if (munmap(memory, size) != 0) {
    workload::die("munmap");
  }
}

void* use_stack(void*) {
  char stack[256 * 1024];
  workload::touch(stack, sizeof stack);
  return nullptr;
}

void run_thread() {
  pthread_t thread;
  if (pthread_create(&thread, nullptr, use_stack, nullptr) != 0 || pthread_join(thread, nullptr) != 0) {
    workload::die("thread");
  }
}

void calloc_recycled(size_t size) {
  void* block = malloc(size);
  workload::touch(block, size);
  free(block);
  char* zeroed = static_cast<char*>(calloc(1, size));
  for (size_t offset = 0; offset < size; offset += 4096) {
    if (zeroed[offset] != 0) {
      workload::die("calloc did not zero");
    }
  }
  workload::touch(zeroed, size);
  free(zeroed);
}

}  // namespace

int main(int argc, char** argv) {
  const workload::Args args(argc, argv,
                            {{"rounds", "20"},
                             {"count", "200"},
                             {"size", "16384"},
                             {"keep", "16"},
                             {"sleep_ms", "15"},
                             {"own_size", "1048576"},
                             {"calloc_size", "524288"}});
  const uint64_t rounds = args.number("rounds");
  {
    workload::Burst burst(args.number("count"), args.number("size"), args.number("keep"));
    for (uint64_t round = 0; round < rounds; round++) {
      burst.run();
      give_back_own_mapping(args.number("own_size"), MADV_DONTNEED);
      give_back_own_mapping(args.number("own_size"), MADV_FREE);
      give_back_own_mapping(args.number("own_size"), decommit);
      run_thread();
      calloc_recycled(args.number("calloc_size"));
      workload::sleep_ms(args.number("sleep_ms"));
    }
  }
  workload::purge(mallctl);
  workload::finish(mallctl, workload::Report()
                                .add("own_dontneed", rounds)
                                .add("own_free", rounds)
                                .add("own_decommit", rounds)
                                .add("own_munmap", 3 * rounds)
                                .add("threads", rounds)
                                .add("callocs", rounds));
}
