// Bursts of allocations that are all freed, with pauses: what decays is what one burst left. `purge` 1: every
// third burst is followed by arena.<all>.purge. `lock` 1: all memory is locked, so that the kernel takes no
// page back.
#include <jemalloc/jemalloc.h>
#include <sys/mman.h>

#include "workload.hpp"

int main(int argc, char** argv) {
  const workload::Args args(argc, argv,
                            {{"rounds", "30"},
                             {"count", "400"},
                             {"size", "16384"},
                             {"keep", "16"},
                             {"sleep_ms", "15"},
                             {"purge", "0"},
                             {"lock", "0"}});
  if (args.number("lock") != 0 && mlockall(MCL_CURRENT | MCL_FUTURE) != 0) {
    workload::die("mlockall");
  }
  {
    workload::Burst burst(args.number("count"), args.number("size"), args.number("keep"));
    for (uint64_t round = 0; round < args.number("rounds"); round++) {
      burst.run();
      workload::sleep_ms(args.number("sleep_ms"));
      if (args.number("purge") != 0 && round % 3 == 2) {
        workload::purge(mallctl);
      }
    }
  }
  workload::finish(mallctl);
}
