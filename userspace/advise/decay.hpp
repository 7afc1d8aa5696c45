#pragma once

#include <array>
#include <cstdint>
#include <limits>
#include <optional>

#include "ledger/reading.hpp"
#include "ledger/smoothstep.hpp"

namespace jemtrace::advise {

/// splitmix64: jemalloc draws its jitter from a generator whose seed is an address, so any will do.
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}
  uint64_t next();
  /// Uniform in [0, limit); 0 when limit is 0.
  uint64_t below(uint64_t limit) { return limit == 0 ? 0 : next() % limit; }
  /// Uniform in [0, 1).
  double unit() { return static_cast<double>(next() >> 11) * 0x1.0p-53; }

 private:
  uint64_t state_;
};

/// decay_t: how many unused pages one cache of one arena may keep (jemalloc's decay.c, the same arithmetic
/// from 5.0 on). Pages that become unused in one epoch, a 200th of the decay time, may stay by a smooth curve
/// that goes from all to none within the decay time. Times are in ns of one clock.
class Decay {
 public:
  static constexpr size_t steps = ledger::decay_steps;
  static constexpr uint64_t never = std::numeric_limits<uint64_t>::max();

  /// decay_reinit. `time_ms`: 0 at once, -1 never; both keep no epochs.
  Decay(int64_t time_ms, uint64_t now_ns, uint64_t seed);

  /// Goes on from what was read in a process. False, and nothing is changed: too little was read.
  bool resume(const ledger::DecayReading& read);

  [[nodiscard]] bool gradual() const { return time_ms_ > 0; }
  [[nodiscard]] bool at_once() const { return time_ms_ == 0; }

  /// decay_maybe_advance_epoch. `pages`: in the cache now. True: an epoch began, and limit() is new.
  bool maybe_advance(uint64_t now_ns, uint64_t pages);
  /// npages_limit
  [[nodiscard]] uint64_t limit() const { return limit_; }
  /// decay_epoch_npages_delta: what became unused in the epoch that has just ended.
  [[nodiscard]] uint64_t newest() const { return backlog_.back(); }
  [[nodiscard]] uint64_t epoch_ns() const { return epoch_ns_; }
  [[nodiscard]] uint64_t deadline_ns() const { return deadline_ns_; }
  [[nodiscard]] uint64_t interval_ns() const { return interval_ns_; }

  /// decay_ns_until_purge: until about `threshold` pages may be purged. `never` when there are none.
  [[nodiscard]] uint64_t ns_until_purge(uint64_t pages, uint64_t threshold) const;
  /// decay_npages_purge_in: how many of `pages` that are new now will have to go within `ns`.
  [[nodiscard]] uint64_t purged_within(uint64_t ns, uint64_t pages) const;

 private:
  void set_deadline();
  void update_backlog(uint64_t epochs, uint64_t pages);
  [[nodiscard]] uint64_t backlog_limit() const;
  [[nodiscard]] uint64_t purgeable_after(size_t epochs) const;

  int64_t time_ms_;
  uint64_t interval_ns_ = 0, epoch_ns_ = 0, deadline_ns_ = 0;
  uint64_t limit_ = 0, nunpurged_ = 0;
  bool empty_ = true;                      // the backlog is all 0
  std::array<uint64_t, steps> backlog_{};  // oldest first
  Random random_;
};

}  // namespace jemtrace::advise
