#include "sample/page_costs.hpp"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <limits>

#include "util/clock.hpp"

namespace jemtrace::sample {
namespace {

constexpr size_t bytes = 16 << 20;
constexpr int rounds = 4;

class Region {
 public:
  Region()
      : start_(::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)),
        page_(static_cast<size_t>(::sysconf(_SC_PAGESIZE))) {
    if (mapped()) {
      ::madvise(start_, bytes, MADV_NOHUGEPAGE);
    }
  }
  ~Region() {
    if (mapped()) {
      ::munmap(start_, bytes);
    }
  }
  Region(const Region&) = delete;
  Region& operator=(const Region&) = delete;

  [[nodiscard]] bool mapped() const { return start_ != MAP_FAILED; }
  [[nodiscard]] double pages() const { return static_cast<double>(bytes) / static_cast<double>(page_); }
  /// ns
  uint64_t touch() {
    const uint64_t begin = monotonic_ns();
    for (size_t at = 0; at < bytes; at += page_) {
      static_cast<volatile char*>(start_)[at] = 1;
    }
    return monotonic_ns() - begin;
  }
  Result<uint64_t> advise(int advice, size_t call_bytes) {
    const uint64_t begin = monotonic_ns();
    for (size_t at = 0; at < bytes; at += call_bytes) {
      if (::madvise(static_cast<char*>(start_) + at, std::min(call_bytes, bytes - at), advice) != 0) {
        return fail_errno("cannot try madvise");
      }
    }
    return monotonic_ns() - begin;
  }
  [[nodiscard]] size_t page() const { return page_; }

 private:
  void* start_;
  size_t page_;
};

}  // namespace

Result<PageCosts> measure_page_costs(unsigned call_pages) {
  Region region;
  if (!region.mapped()) {
    return fail_errno("cannot map memory to try what its pages cost");
  }
  const size_t call_bytes = std::clamp<size_t>(call_pages, 1, bytes / region.page()) * region.page();
  constexpr uint64_t none = std::numeric_limits<uint64_t>::max();
  uint64_t lazy = none;
  uint64_t forced = none;
  uint64_t fault = none;
  region.touch();
  for (int round = 0; round < rounds; ++round) {
    ASSIGN_OR_RETURN(const uint64_t freed, region.advise(MADV_FREE, call_bytes));
    region.touch();  // so that what is given up next is as dirty pages are
    ASSIGN_OR_RETURN(const uint64_t given, region.advise(MADV_DONTNEED, call_bytes));
    lazy = std::min(lazy, freed);
    forced = std::min(forced, given);
    fault = std::min(fault, region.touch());
  }
  return PageCosts{.lazy_ns = static_cast<double>(lazy) / region.pages(),
                   .forced_ns = static_cast<double>(forced) / region.pages(),
                   .fault_ns = static_cast<double>(fault) / region.pages()};
}

}  // namespace jemtrace::sample
