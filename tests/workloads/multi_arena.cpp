// Threads, each bound to an arena, in rounds. `arenas` 0: every thread makes its own arena and destroys it at
// the end (its counters move to the destroyed ones); N: threads share the first N automatic arenas. `purge`
// 1: each thread purges its arena after its last round.
#include <jemalloc/jemalloc.h>

#include <thread>
#include <vector>

#include "workload.hpp"

int main(int argc, char** argv) {
  const workload::Args args(argc, argv,
                            {{"threads", "8"},
                             {"arenas", "0"},
                             {"rounds", "10"},
                             {"count", "120"},
                             {"size", "16384"},
                             {"keep", "16"},
                             {"sleep_ms", "40"},
                             {"purge", "1"}});
  const bool own_arenas = args.number("arenas") == 0;
  std::vector<unsigned> arenas;
  {
    std::vector<std::jthread> threads;
    for (unsigned i = 0; i < args.number("threads"); i++) {
      arenas.push_back(own_arenas ? workload::create_arena(mallctl)
                                  : i % static_cast<unsigned>(args.number("arenas")));
      threads.emplace_back([&args, arena = arenas.back()] {
        workload::bind_thread_to_arena(mallctl, arena);
        {
          workload::Burst burst(args.number("count"), args.number("size"), args.number("keep"));
          for (uint64_t round = 0; round < args.number("rounds"); round++) {
            burst.run();
            workload::sleep_ms(args.number("sleep_ms"));
          }
        }
        if (args.number("purge") != 0) {
          workload::purge(mallctl, arena);
        }
      });
    }
  }
  if (own_arenas) {
    for (unsigned arena : arenas) {
      workload::destroy_arena(mallctl, arena);
    }
  }
  workload::finish(mallctl);
}
