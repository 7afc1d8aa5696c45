#include "sample/pages.hpp"

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <chrono>

namespace jemtrace::sample {
namespace {

using namespace std::chrono_literals;

constexpr uint64_t size = uint64_t{4} << 20;
constexpr auto page = uint64_t{4096};

/// Anonymous memory of this process, without huge pages.
class Memory {
 public:
  Memory()
      : start_(static_cast<char*>(
            ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0))) {
    ::madvise(start_, size, MADV_NOHUGEPAGE);
  }
  ~Memory() { ::munmap(start_, size); }
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;
  void touch(uint64_t from, uint64_t bytes) const {
    for (uint64_t at = from; at < from + bytes; at += page) {
      const_cast<volatile char*>(start_)[at] = 1;
    }
  }
  void read(uint64_t from, uint64_t bytes) const {
    for (uint64_t at = from; at < from + bytes; at += page) {
      (void)const_cast<volatile char*>(start_)[at];
    }
  }
  void advise(uint64_t from, uint64_t bytes, int advice) const { ::madvise(start_ + from, bytes, advice); }
  [[nodiscard]] ledger::Range range(uint64_t from = 0, uint64_t bytes = size) const {
    return {reinterpret_cast<uint64_t>(start_) + from, bytes};
  }

 private:
  char* start_;
};

Result<ledger::Residency> look(const ledger::Range& range, bool lazily = false,
                               std::chrono::nanoseconds limit = 10s) {
  return residency(ProcRoot(), ::getpid(), std::span(&range, 1), lazily, limit);
}

TEST(Pages, counts_what_is_present_in_just_the_range) {
  const Memory memory;
  memory.touch(size / 4, size / 2);
  EXPECT_EQ(look(memory.range())->present_bytes, size / 2);
  EXPECT_EQ(look(memory.range(0, size / 2))->present_bytes, size / 4);
  EXPECT_EQ(look(memory.range(0, size / 4))->present_bytes, 0u);
  memory.advise(size / 4, page, MADV_DONTNEED);
  EXPECT_EQ(look(memory.range())->present_bytes, size / 2 - page);
  EXPECT_FALSE(look(memory.range())->freed_lazily_bytes);
}

TEST(Pages, knows_what_was_freed_lazily) {
  if (::access("/proc/kpageflags", R_OK) != 0) {
    GTEST_SKIP() << "/proc/kpageflags cannot be read";
  }
  const Memory memory;
  memory.touch(0, size);
  EXPECT_EQ(look(memory.range(), true)->freed_lazily_bytes, 0u);
  memory.advise(0, size / 2, MADV_FREE);
  const auto lazy = look(memory.range(), true);
  if (!lazy->freed_lazily_bytes) {
    GTEST_SKIP() << "page frame numbers are hidden from this process";
  }
  EXPECT_EQ(lazy->present_bytes, size);
  // The kernel marks pages in batches of up to 31 on each CPU.
  EXPECT_LE(*lazy->freed_lazily_bytes, size / 2);
  EXPECT_GE(*lazy->freed_lazily_bytes,
            size / 2 - 31 * page * static_cast<uint64_t>(::sysconf(_SC_NPROCESSORS_CONF)));
}

TEST(Pages, that_were_only_read_are_not_resident) {
  if (::access("/proc/kpageflags", R_OK) != 0) {
    GTEST_SKIP() << "/proc/kpageflags cannot be read";
  }
  const Memory memory;
  memory.touch(0, size / 4);
  memory.read(size / 2, size / 4);
  EXPECT_EQ(look(memory.range())->present_bytes, size / 4);
}

TEST(Pages, ranges_that_are_not_there_hold_nothing) {
  EXPECT_EQ(look({0x1000, uint64_t{1} << 20})->present_bytes, 0u);
  EXPECT_EQ(look({uint64_t{1} << 62, uint64_t{1} << 20})->present_bytes, 0u);
  EXPECT_EQ(look({0, 0})->present_bytes, 0u);
}

TEST(Pages, ends_when_it_takes_too_long) {
  const Memory memory;
  EXPECT_EQ(look(memory.range(), false, 0ns).error().code, Errc::too_large);
}

TEST(Pages, of_a_process_that_is_gone) {
  const ledger::Range range{0x1000, 0x1000};
  EXPECT_EQ(residency(ProcRoot(), 0x3fffffff, std::span(&range, 1), false, 1s).error().code, Errc::gone);
}

}  // namespace
}  // namespace jemtrace::sample
