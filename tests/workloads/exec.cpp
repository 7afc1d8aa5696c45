// Works, prints its counters and executes itself: the same pid, but jemalloc starts anew. Two blocks, stage 1
// and 2.
#include <jemalloc/jemalloc.h>
#include <unistd.h>

#include "workload.hpp"

int main(int argc, char** argv) {
  const workload::Args args(argc, argv,
                            {{"stage", "1"},
                             {"rounds", "20"},
                             {"count", "300"},
                             {"size", "16384"},
                             {"keep", "16"},
                             {"sleep_ms", "15"},
                             {"purge", "1"}});
  {
    workload::Burst burst(args.number("count"), args.number("size"), args.number("keep"));
    for (uint64_t round = 0; round < args.number("rounds"); round++) {
      burst.run();
      workload::sleep_ms(args.number("sleep_ms"));
    }
  }
  if (args.number("purge") != 0) {
    workload::purge(mallctl);
  }
  workload::print_counters(mallctl, workload::Report().add("stage", args.number("stage")));
  if (args.number("stage") == 1) {
    execl("/proc/self/exe", argv[0], "stage=2", nullptr);
    workload::die("exec");
  }
  _exit(0);
}
