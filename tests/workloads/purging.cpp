// Frees memory all the time, so that purging can be watched. Blocks of `kib` are touched and freed, one each
// `pause_us`, for `ms`:
//   mode=reuse     the next block takes the room of the last one
//   mode=drain     all `count` blocks are there before the first is freed, and none is allocated again; every
//                  `keep`th stays (0: none), so that neighbours do not coalesce
// `readers` threads read /proc/self/smaps_rollup without a pause, which holds the mmap lock; `hold_mib` of
// memory give them something to read. `spinners` threads only burn CPU time, each on a CPU of its own. Says
// done=ready before it begins.
#include <fcntl.h>
#include <jemalloc/jemalloc.h>
#include <sched.h>
#include <stdlib.h>
#include <unistd.h>

#include <atomic>
#include <string_view>
#include <thread>
#include <vector>

#include "workload.hpp"

namespace {

void read_for_ever(const char* path) {
  std::vector<char> buffer(65536);
  for (;;) {
    const int file = open(path, O_RDONLY);
    while (read(file, buffer.data(), buffer.size()) > 0) {
    }
    close(file);
  }
}

/// Threads that share a CPU have nothing to interrupt.
void stay_on_cpu(uint64_t cpu) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(cpu, &set);
  sched_setaffinity(0, sizeof set, &set);
}

void* fresh(uint64_t bytes) {
  void* block = malloc(bytes);
  workload::touch(block, bytes);
  return block;
}

void pause_us(uint64_t us) {
  if (us > 0) {
    usleep(static_cast<useconds_t>(us));
  }
}

}  // namespace

int main(int argc, char** argv) {
  const workload::Args args(argc, argv,
                            {{"mode", "reuse"},
                             {"kib", "1024"},
                             {"count", "64"},
                             {"keep", "0"},
                             {"pause_us", "1000"},
                             {"ms", "10000"},
                             {"readers", "0"},
                             {"hold_mib", "0"},
                             {"spinners", "0"},
                             {"start_ms", "0"}});
  const uint64_t bytes = args.number("kib") << 10;
  const uint64_t keep = args.number("keep");
  const bool drain = args.text("mode") == std::string_view("drain");
  if (args.number("hold_mib") > 0) {
    fresh(args.number("hold_mib") << 20);
  }
  // Not arena 0: up to 5.3.0 that one keeps an oversize_threshold of 8 MiB, whatever is set.
  workload::bind_thread_to_arena(mallctl, workload::create_arena(mallctl));
  std::vector<void*> blocks(drain ? args.number("count") : 0);
  for (void*& block : blocks) {
    block = fresh(bytes);
  }
  for (uint64_t i = 0; i < args.number("readers"); i++) {
    std::thread(read_for_ever, "/proc/self/smaps_rollup").detach();
  }
  static std::atomic<uint64_t> spins;
  for (uint64_t i = 0; i < args.number("spinners"); i++) {
    std::thread([i] {
      stay_on_cpu(i + 1);
      nice(-10);  // of this thread alone: when others have its CPU there is nothing to interrupt
      for (;;) {
        spins.fetch_add(1, std::memory_order_relaxed);
      }
    }).detach();
  }
  if (args.number("spinners") > 0) {
    stay_on_cpu(0);
  }
  workload::Report().add("done", "ready").write();
  workload::sleep_ms(args.number("start_ms"));  // whoever watches has to have come
  const uint64_t end = workload::now_ns() + args.number("ms") * 1'000'000;
  for (uint64_t i = 0; workload::now_ns() < end; i++) {
    if (drain && i >= blocks.size()) {
      workload::sleep_ms(10);
      continue;
    }
    if (!drain) {
      free(fresh(bytes));
    } else if (keep == 0 || i % keep != 0) {
      free(blocks[i]);
    }
    pause_us(args.number("pause_us"));
  }
  _exit(0);
}
