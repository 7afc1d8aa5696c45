// As many purge syscalls a second as asked: each thread frees small extents in an arena of its own whose
// dirty_decay_ms is 0, so each free() is one madvise. `rate` is per second over all threads, 0: unlimited.
// Prints calls, ns and, with `report_every` N, the nanoseconds of each batch of N purges as batch_ns lines on
// stdout while it runs.
#include <jemalloc/jemalloc.h>

#include <cstdio>
#include <functional>
#include <thread>
#include <vector>

#include "workload.hpp"

namespace {

struct Pace {
  uint64_t calls_per_s;  // of this thread; 0: unlimited
  uint64_t size;
  uint64_t touch;
  uint64_t report_every;
  uint64_t duration_ns;
};

unsigned make_eager_arena() {
  const unsigned arena = workload::create_arena(mallctl);
  char name[64];
  ssize_t decay_ms = 0;
  snprintf(name, sizeof name, "arena.%u.dirty_decay_ms", arena);
  if (mallctl(name, nullptr, nullptr, &decay_ms, sizeof decay_ms) != 0) {
    workload::die(name);
  }
  return arena;
}

void wait_until(uint64_t due_ns) {
  while (workload::now_ns() < due_ns) {
    std::this_thread::yield();
  }
}

void storm(const Pace& pace, uint64_t& calls) {
  constexpr uint64_t chunk = 64;
  const int flags = static_cast<int>(MALLOCX_ARENA(make_eager_arena())) | MALLOCX_TCACHE_NONE;
  const uint64_t start = workload::now_ns();
  uint64_t batch_start = start;

  for (uint64_t now = start; now - start < pace.duration_ns; now = workload::now_ns()) {
    for (uint64_t i = 0; i < chunk; i++) {
      void* block = mallocx(pace.size, flags);
      if (pace.touch != 0) {
        workload::touch(block, pace.size);
      }
      dallocx(block, flags);
    }
    calls += chunk;
    if (pace.report_every != 0 && calls % pace.report_every == 0) {
      const uint64_t end = workload::now_ns();
      printf("batch_ns=%lu\n", static_cast<unsigned long>(end - batch_start));
      fflush(stdout);
      batch_start = workload::now_ns();
    }
    if (pace.calls_per_s != 0) {
      wait_until(start + calls * 1'000'000'000 / pace.calls_per_s);
    }
  }
}

}  // namespace

int main(int argc, char** argv) {
  const workload::Args args(argc, argv,
                            {{"threads", "1"},
                             {"rate", "0"},
                             {"ms", "1000"},
                             {"size", "16384"},
                             {"touch", "0"},
                             {"report_every", "0"}});
  const uint64_t threads = args.number("threads");
  const Pace pace = {args.number("rate") / threads, args.number("size"), args.number("touch"),
                     args.number("report_every"), args.number("ms") * 1'000'000};
  std::vector<uint64_t> calls(threads);
  const uint64_t start = workload::now_ns();
  {
    std::vector<std::jthread> running;
    for (uint64_t& count : calls) {
      running.emplace_back(storm, std::cref(pace), std::ref(count));
    }
  }
  const uint64_t ns = workload::now_ns() - start;
  uint64_t sum = 0;
  for (uint64_t count : calls) {
    sum += count;
  }
  workload::finish(mallctl, workload::Report().add("calls", sum).add("ns", ns));
}
