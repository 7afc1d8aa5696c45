#pragma once

#include <compare>
#include <cstdint>
#include <optional>
#include <vector>

#include "advise/activity.hpp"

namespace jemtrace::advise {

/// The settings that are varied, as jemalloc's options of the same names.
struct Settings {
  int64_t dirty_ms = 10000, muzzy_ms = 0;  // 0: at once; -1: never
  bool background = false;
  auto operator<=>(const Settings&) const = default;
};

/// What the work costs on this host.
struct Costs {
  double lazy_ns = 0, forced_ns = 0;  // a page by MADV_FREE, by MADV_DONTNEED
  double fault_ns = 0;                // a purged page that is touched again
};

/// How this jemalloc, in this process, differs from the plain algorithm.
struct Model {
  /// Freed extents of this size and more are purged within free() (oversize_threshold, 5.2.0 and later). Not
  /// when a decay time is -1.
  std::optional<uint64_t> oversize_pages;
  /// Of the most pages that an arena has in use, those that take part when blocks are replaced by others; the
  /// rest stays until active pages become fewer.
  double changing_share = 1;
  double touched_share = 1;               // of the purged pages that are taken again
  bool background_ends_oversize = false;  // 5.3.1 and later: not with background threads either
  unsigned background_threads = 4;        // max_background_threads
  bool first_wake_schedules = true;       // 5.3.0 and later: a thread woken from its long sleep only plans
  bool own_background = false;    // the program switches background threads: the option decides nothing
  std::optional<Settings> usual;  // as now: an arena whose decay times are others, as the one for huge
                                  // allocations, keeps them
  std::optional<double> busy_chances, idle_chances;  // per second; nullopt: always, and never
};

enum class Begin {
  as_read,  // goes on from the state that the process was in
  empty,    // the program's start
  settled,  // the time is played several times, the last one counts
};

/// All amounts are of the time simulated, in pages.
struct Outcome {
  double seconds = 0;
  double mean_resident = 0;  // active, dirty and muzzy: the kernel is taken not to reclaim muzzy pages
  uint64_t peak_resident = 0;
  uint64_t lazy = 0, forced = 0;  // purged by MADV_FREE, by MADV_DONTNEED
  uint64_t refaulted = 0;         // purged by MADV_DONTNEED, and touched again
  uint64_t lazily_reused = 0;     // muzzy, and taken again: no fault
  double app_purge_ns = 0, background_purge_ns = 0, fault_ns = 0;
  std::optional<double> stall_p99_ns;  // of the decay passes on application threads; nullopt: there was none
  bool at_least = false;  // purges and faults may be many more: what is freed and taken again between two
                          // readings counts with dirty_decay_ms:0

  [[nodiscard]] uint64_t purged() const { return lazy + forced; }
  /// Shares of one CPU.
  [[nodiscard]] double cost() const {
    return (app_purge_ns + background_purge_ns + fault_ns) / (seconds * 1e9);
  }
  [[nodiscard]] double app_cost() const { return (app_purge_ns + fault_ns) / (seconds * 1e9); }
};

/// Plays jemalloc's decay over what was recorded: docs/advise.md says how, and what it leaves out.
/// Which block is freed, and when decay gets a chance, is drawn: the mean of so many `plays`, the same ones
/// each time. `activity` has at least two readings.
Outcome simulate(const Activity& activity, const Settings& settings, const Model& model, const Costs& costs,
                 Begin begin, unsigned plays = 1);

}  // namespace jemtrace::advise
