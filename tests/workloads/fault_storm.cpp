// Page faults as fast as they come, for ever: takes memory away from itself and touches it again. memory=own:
// a mapping of its own, by its own MADV_DONTNEED; memory=purged: blocks that jemalloc purges and hands out
// again. Either way jemalloc has purged something once. Prints the CPU time per page of each round's touches,
// fault_ns, and of its purges, purge_ns.
#include <jemalloc/jemalloc.h>
#include <sys/mman.h>
#include <time.h>

#include <string_view>

#include "workload.hpp"

namespace {

constexpr size_t page_size = 4096;

uint64_t cpu_ns() {
  timespec now;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<uint64_t>(now.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(now.tv_nsec);
}

void report(const char* key, uint64_t ns, size_t size) {
  workload::Report().add(key, ns / (size / page_size)).write();
}

[[noreturn]] void storm_own(size_t size) {
  void* memory = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED || madvise(memory, size, MADV_NOHUGEPAGE) != 0) {
    workload::die("mmap");
  }
  for (;;) {
    const uint64_t begin = cpu_ns();
    workload::touch(memory, size);
    report("fault_ns", cpu_ns() - begin, size);
    if (madvise(memory, size, MADV_DONTNEED) != 0) {
      workload::die("madvise");
    }
  }
}

[[noreturn]] void storm_purged(unsigned arena, size_t size) {
  const int flags = static_cast<int>(MALLOCX_ARENA(arena)) | MALLOCX_TCACHE_NONE;
  for (;;) {
    void* block = mallocx(size, flags);
    const uint64_t begin = cpu_ns();
    workload::touch(block, size);
    report("fault_ns", cpu_ns() - begin, size);
    dallocx(block, flags);
    const uint64_t purge = cpu_ns();
    workload::purge(mallctl, arena);
    report("purge_ns", cpu_ns() - purge, size);
  }
}

}  // namespace

int main(int argc, char** argv) {
  const workload::Args args(argc, argv, {{"memory", "own"}, {"size", "4194304"}});
  const unsigned arena = workload::create_arena(mallctl);
  void* block = mallocx(args.number("size"), static_cast<int>(MALLOCX_ARENA(arena)) | MALLOCX_TCACHE_NONE);
  workload::touch(block, args.number("size"));
  dallocx(block, MALLOCX_TCACHE_NONE);
  workload::purge(mallctl, arena);
  if (args.text("memory") == std::string_view("own")) {
    storm_own(args.number("size"));
  }
  storm_purged(arena, args.number("size"));
}
