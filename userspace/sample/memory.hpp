#pragma once

#include <sys/types.h>

#include <chrono>
#include <cstdint>
#include <optional>
#include <string_view>

#include "util/file.hpp"

/// What the kernel says of a process's memory, at a price that is kept.
namespace jemtrace::sample {

struct Statm {
  uint64_t rss_bytes = 0;
};
/// /proc/PID/statm: costs 2 us whatever the size of the process.
std::optional<Statm> parse_statm(std::string_view text);
/// RSS of a process by statm. 0: it is a zombie.
Result<uint64_t> read_rss(const ProcRoot& proc, pid_t pid);

struct SmapsRollup {
  uint64_t rss_bytes = 0, anonymous_bytes = 0, lazyfree_bytes = 0;
};
/// /proc/PID/smaps_rollup: walks the page tables under the target's mmap lock, 2.7 ms per GB of 4K pages.
std::optional<SmapsRollup> parse_smaps_rollup(std::string_view text);

/// When a costly read may be done again, so that reading takes at most a share of the time.
class Budget {
 public:
  using Clock = std::chrono::steady_clock;
  /// Half of the 0.1 % of the time that a target may be read: smaps and jemalloc's numbers have a budget
  /// each.
  explicit Budget(double share = 0.0005) : share_(share) {}
  [[nodiscard]] bool allows(Clock::time_point now) const { return now >= next_; }
  void spent(Clock::time_point now, Clock::duration cost);
  /// Makes it wait until something of this cost may be afforded.
  void save_for(Clock::time_point now, Clock::duration cost);
  [[nodiscard]] std::chrono::nanoseconds total() const { return total_; }

 private:
  double share_;
  Clock::time_point next_{};
  std::chrono::nanoseconds total_{};
};

struct Memory {
  uint64_t rss_bytes = 0;                  // statm, now
  std::optional<uint64_t> lazyfree_bytes;  // smaps_rollup
  uint64_t lazyfree_age_ms = 0;
};

/// What smaps_rollup is expected to cost before it was ever read: at least 6 ms per GB of 4K pages, and half
/// as much again as a walk over our own pages takes, per page. Measured: 2.7 to 14 ms per GB, by the machine
/// and the day.
std::chrono::nanoseconds expected_rollup_cost(uint64_t rss_bytes);

/// Both, at any price: for who asks once and by hand.
Result<Memory> memory_now(const ProcRoot& proc, pid_t pid);

/// Samples one process again and again. The first costly read is an advance on the budget where it is
/// expected to take 25 ms or less (1 to 4 GB); a larger process has to wait for it until its share of the
/// time is saved up.
class Sampler {
 public:
  Sampler(ProcRoot proc, pid_t pid) : proc_(std::move(proc)), pid_(pid) {}
  /// `lazyfree_may_have_changed`: MADV_FREE was seen since, so that the costly read may be worth it.
  Result<Memory> sample(bool lazyfree_may_have_changed);
  [[nodiscard]] std::chrono::nanoseconds cost() const { return budget_.total(); }

 private:
  ProcRoot proc_;
  pid_t pid_;
  Budget budget_;
  bool began_ = false;
  std::optional<SmapsRollup> last_;
  Budget::Clock::time_point last_at_{};
};

}  // namespace jemtrace::sample
