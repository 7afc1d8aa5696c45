// A large process of many mappings that maps and unmaps all the time, and reports how long that takes: what a
// reader of its /proc files makes it wait for. Purges into the muzzy cache, so that LazyFree moves and is
// worth reading.
#include <jemalloc/jemalloc.h>
#include <stdlib.h>
#include <sys/mman.h>

#include <algorithm>
#include <vector>

#include "workload.hpp"

namespace {

constexpr size_t page = 4096, piece = 64 * 1024;

/// `count` mappings of `bytes` in all, each touched. Neighbours differ in their rights, or the kernel would
/// merge them.
void map_many(uint64_t count, uint64_t bytes) {
  const size_t each = bytes / count / page * page;
  for (uint64_t i = 0; i < count; i++) {
    const int rights = PROT_READ | PROT_WRITE | (i % 2 == 0 ? 0 : PROT_EXEC);
    void* mapped = mmap(nullptr, each, rights, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (mapped == MAP_FAILED) {
      workload::die("mmap");
    }
    madvise(mapped, each, MADV_NOHUGEPAGE);
    workload::touch(mapped, each);
  }
}

uint64_t map_and_unmap() {
  const uint64_t begin = workload::now_ns();
  void* mapped = mmap(nullptr, piece, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  munmap(mapped, piece);
  return workload::now_ns() - begin;
}

/// The latencies of one round: their median, 99th percentile and maximum.
void report(std::vector<uint64_t>& latencies) {
  std::sort(latencies.begin(), latencies.end());
  const auto at = [&](double share) {
    return latencies[static_cast<size_t>(share * static_cast<double>(latencies.size() - 1))];
  };
  workload::Report()
      .add("calls", latencies.size())
      .add("p50_ns", at(0.5))
      .add("p99_ns", at(0.99))
      .add("max_ns", at(1))
      .write();
  latencies.clear();
}

}  // namespace

int main(int argc, char** argv) {
  const workload::Args args(argc, argv,
                            {{"mappings", "1000"}, {"mib", "1024"}, {"round_ms", "1000"}, {"ms", "10000"}});
  map_many(args.number("mappings"), args.number("mib") << 20);
  std::vector<uint64_t> latencies;
  latencies.reserve(10'000'000);
  workload::Burst burst(50, 16384, 8);
  const uint64_t end = workload::now_ns() + args.number("ms") * 1'000'000;
  while (workload::now_ns() < end) {
    const uint64_t round_end = workload::now_ns() + args.number("round_ms") * 1'000'000;
    burst.run();
    while (workload::now_ns() < round_end && latencies.size() < latencies.capacity()) {
      latencies.push_back(map_and_unmap());
    }
    report(latencies);
  }
  workload::finish(mallctl);
}
