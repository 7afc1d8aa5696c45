// Constant churn: each thread replaces random blocks of mixed sizes without a pause, so purges come from
// ticks in the middle of allocation.
#include <jemalloc/jemalloc.h>
#include <stdlib.h>

#include <thread>
#include <vector>

#include "workload.hpp"

namespace {

void churn(uint64_t seed, uint64_t blocks, uint64_t size, uint64_t ms) {
  std::vector<void*> live(blocks);
  uint64_t random = seed;
  const uint64_t end = workload::now_ns() + ms * 1'000'000;
  while (workload::now_ns() < end) {
    for (int i = 0; i < 64; i++) {
      random = random * 6364136223846793005u + 1442695040888963407u;
      void*& block = live[(random >> 33) % blocks];
      const size_t bytes = 1 + (random >> 20) % size;
      free(block);
      block = malloc(bytes);
      workload::touch(block, bytes);
    }
  }
  for (void* block : live) {
    free(block);
  }
}

bool background_threads_are_on() {
  bool on = false;
  size_t length = sizeof on;
  return mallctl("background_thread", &on, &length, nullptr, 0) == 0 && on;
}

}  // namespace

int main(int argc, char** argv) {
  const workload::Args args(argc, argv,
                            {{"threads", "2"}, {"blocks", "200"}, {"size", "131072"}, {"ms", "700"}});
  {
    std::vector<std::jthread> threads;
    for (uint64_t i = 0; i < args.number("threads"); i++) {
      threads.emplace_back(churn, i + 1, args.number("blocks"), args.number("size"), args.number("ms"));
    }
  }
  // On a busy machine jemalloc's background threads may not have had their turn: there is something to purge
  // now.
  for (int i = 0; i < 1000 && background_threads_are_on(); i++) {
    const workload::Counters counters = workload::read_counters(mallctl);
    if (counters.dirty_npurge > 0 && counters.muzzy_npurge > 0) {
      break;
    }
    workload::sleep_ms(10);
  }
  workload::finish(mallctl);
}
