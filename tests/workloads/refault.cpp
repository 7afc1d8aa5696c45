// Purges a known number of pages by arena.<i>.purge, then touches known shares of them: `now` of 100 pages at
// once, `later` of 100 after `wait_ms`. jemalloc keeps the ranges as retained memory, so a 0 written to them
// changes nothing. start=line waits for a line on stdin first. by=read touches by read(2), which faults in
// the kernel. thp=off forbids huge pages for this process (prctl). Reports: purged_pages, touched_now,
// touched_later, faults_now, faults_later (ru_minflt), resident_pages (by mincore, at the end).
#include <fcntl.h>
#include <jemalloc/jemalloc.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cstdio>
#include <vector>

#include "workload.hpp"

namespace {

constexpr size_t page_size = 4096;

uint64_t minor_faults() {
  rusage usage;
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<uint64_t>(usage.ru_minflt);
}

struct Touches {
  uint64_t pages = 0, faults = 0;
};

/// Touches the pages whose number modulo 100 lies in [first, end).
Touches touch_share(const std::vector<char*>& pages, uint64_t first, uint64_t end, int zeroes) {
  Touches touches;
  const uint64_t before = minor_faults();
  for (size_t i = 0; i < pages.size(); i++) {
    if (i % 100 < first || i % 100 >= end) {
      continue;
    }
    if (zeroes >= 0) {
      if (read(zeroes, pages[i], 1) != 1) {
        workload::die("read");
      }
    } else {
      *static_cast<volatile char*>(pages[i]) = 0;
    }
    touches.pages++;
  }
  touches.faults = minor_faults() - before;
  return touches;
}

uint64_t resident(const std::vector<char*>& pages) {
  uint64_t count = 0;
  for (char* page : pages) {
    unsigned char in_core = 0;
    count += mincore(page, page_size, &in_core) == 0 && (in_core & 1) != 0 ? 1 : 0;
  }
  return count;
}

}  // namespace

int main(int argc, char** argv) {
  const workload::Args args(argc, argv,
                            {{"blocks", "256"},
                             {"size", "262144"},
                             {"now", "10"},
                             {"later", "20"},
                             {"wait_ms", "1500"},
                             {"start", "now"},
                             {"by", "write"},
                             {"thp", "as_is"}});
  if (args.text("thp") == std::string_view("off") && prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0) != 0) {
    workload::die("prctl(PR_SET_THP_DISABLE)");
  }
  const int zeroes = args.text("by") == std::string_view("read") ? open("/dev/zero", O_RDONLY) : -1;
  const unsigned arena = workload::create_arena(mallctl);
  const int flags = static_cast<int>(MALLOCX_ARENA(arena)) | MALLOCX_TCACHE_NONE;
  const uint64_t size = args.number("size");
  std::vector<void*> blocks(args.number("blocks"));
  std::vector<char*> pages;
  pages.reserve(blocks.size() * (size / page_size));
  for (void*& block : blocks) {
    block = mallocx(size, flags);
    workload::touch(block, size);
    for (size_t at = 0; at < size; at += page_size) {
      // jemalloc begins large blocks at a random place in their first page.
      pages.push_back(static_cast<char*>(block) + at - reinterpret_cast<uintptr_t>(block) % page_size);
    }
  }
  for (void* block : blocks) {
    dallocx(block, flags);
  }
  if (args.text("start") == std::string_view("line")) {
    char byte = 0;
    while (read(STDIN_FILENO, &byte, 1) == 1 && byte != '\n') {
    }
  }
  const uint64_t purged_before = workload::read_counters(mallctl).dirty_purged;
  workload::purge(mallctl, arena);
  const uint64_t purged = workload::read_counters(mallctl).dirty_purged - purged_before;

  const uint64_t now = args.number("now");
  const Touches first = touch_share(pages, 0, now, zeroes);
  workload::sleep_ms(args.number("wait_ms"));
  const Touches second = touch_share(pages, now, now + args.number("later"), zeroes);
  workload::Report report;
  report.add("purged_pages", purged)
      .add("touched_now", first.pages)
      .add("touched_later", second.pages)
      .add("faults_now", first.faults)
      .add("faults_later", second.faults)
      .add("resident_pages", resident(pages));
  workload::finish(mallctl, report);
}
