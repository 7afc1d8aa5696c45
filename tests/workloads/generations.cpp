// `threads` threads, one after another, never two at a time. Each frees `count` blocks of `kib`, which are
// purged there and then when dirty_decay_ms is 0.
#include <jemalloc/jemalloc.h>
#include <stdlib.h>

#include <thread>
#include <vector>

#include "workload.hpp"

int main(int argc, char** argv) {
  const workload::Args args(argc, argv, {{"threads", "100"}, {"count", "1"}, {"kib", "64"}});
  const uint64_t bytes = args.number("kib") * 1024;
  for (uint64_t i = 0; i < args.number("threads"); i++) {
    std::thread([&] {
      std::vector<void*> blocks(args.number("count"));
      for (void*& block : blocks) {
        block = malloc(bytes);
        workload::touch(block, bytes);
      }
      for (void* block : blocks) {
        free(block);
      }
    }).join();
  }
  workload::finish(mallctl);
}
