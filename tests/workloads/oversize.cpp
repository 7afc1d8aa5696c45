// Frees neighbouring blocks until they coalesce to oversize_threshold (8 MiB) and more: jemalloc purges
// inside free(), on this thread, whatever the decay times. Counted in nmadvise and purged, not in npurge.
// `ticks`: after each round so many allocations beyond the thread cache, as 1000 make a tick.
#include <jemalloc/jemalloc.h>
#include <stdlib.h>

#include <vector>

#include "workload.hpp"

int main(int argc, char** argv) {
  const workload::Args args(
      argc, argv,
      {{"rounds", "5"}, {"count", "96"}, {"size", "1048576"}, {"sleep_ms", "10"}, {"ticks", "0"}});
  {
    std::vector<void*> blocks(args.number("count"));
    for (uint64_t round = 0; round < args.number("rounds"); round++) {
      for (void*& block : blocks) {
        block = malloc(args.number("size"));
        workload::touch(block, args.number("size"));
      }
      for (void* block : blocks) {
        free(block);
      }
      workload::sleep_ms(args.number("sleep_ms"));
      for (uint64_t i = 0; i < args.number("ticks"); i++) {
        void* const block = malloc(65536);
        workload::touch(block, 1);
        free(block);
      }
    }
  }
  workload::finish(mallctl);
}
