#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "ledger/model.hpp"
#include "util/result.hpp"

/// Many runs of jemtrace on many hosts, added up. Adding is exact, and in any order and grouping comes to the
/// same.
namespace jemtrace::ledger {

/// A sum of which parts may be unknown: then it is a lower bound, and says so.
struct PartialSum {
  uint64_t sum = 0;      // of the known parts
  uint64_t parts = 0;    // that were added, known or not
  uint64_t unknown = 0;  // of them

  /// Of a single part.
  static PartialSum of(const Maybe<uint64_t>& value) {
    return {value.value_or(0), 1, value ? uint64_t{0} : uint64_t{1}};
  }
  /// nullopt: no part is known. 0 parts are 0.
  [[nodiscard]] Maybe<uint64_t> known() const {
    return parts > 0 && unknown == parts ? Maybe<uint64_t>() : sum;
  }
  [[nodiscard]] bool complete() const { return unknown == 0; }
  bool operator==(const PartialSum&) const = default;
};

/// What every member of a group adds to. A group is a host, a cgroup, a version of jemalloc.
struct FleetGroup {
  uint64_t processes = 0;                // summaries
  Histogram purges;                      // all transitions, all payers
  uint64_t app_calls = 0, app_ns = 0;    // of `purges`, on threads of the program
  PartialSum rss_bytes, lazyfree_bytes;  // at the end of each trace
};

/// One run of jemtrace on one host; what tells it from others.
struct FleetRun {
  std::string host;  // untrusted; empty: unknown
  int64_t start_unix_ns = 0;
  int64_t end_unix_ns = 0;               // the longest trace in it; start_unix_ns when it has none
  std::string jemtrace_version, kernel;  // untrusted
  uint64_t processes = 0;
  uint64_t exact = 0;      // of them, those whose totals equal jemalloc's own counters
  Losses losses{};         // of the host: the most that any summary of the run said
  Maybe<uint64_t> cpu_ns;  // jemtrace's own
};

enum class GroupKind { host, cgroup, version, kinds };
const char* name(GroupKind kind);  // "host", "cgroup", "version"
constexpr size_t group_kinds = static_cast<size_t>(GroupKind::kinds);

/// jemalloc's own counters and the sweeps, as `counters` and `sweeps` of a summary name them.
struct FleetCounters {
  struct Decay {
    PartialSum npurge, nmadvise, purged_pages;
  };
  std::array<Decay, JT_STATES> decay;                               // [retained] stays empty
  std::array<std::array<PartialSum, JT_CAUSES>, JT_STATES> sweeps;  // likewise
  PartialSum oversize_extents;
  /// Of the pages whose way back was followed. Unknown where that was not measured.
  PartialSum purged_pages, followed_pages, touched_10s_pages, waiting_10s_pages;
};

class Fleet {
 public:
  /// More groups of a kind are not told apart: they add to `other`, and are counted. Which ones those are
  /// depends on the order; the sums over all do not.
  static constexpr size_t max_groups = 100'000;
  static constexpr const char* other = "(other)";
  static constexpr size_t max_runs = 1'000'000;

  using Key = std::pair<std::string, int64_t>;  // host, start_unix_ns: what tells runs apart

  /// Errc::usage when a run is in both, and *this is as it was. Errc::malformed when a sum does not fit into
  /// 64 bits, which no real fleet comes to; *this is then of no use.
  Status merge(const Fleet& other);
  /// Errc::usage when it is known already.
  Status add_run(const FleetRun& run);
  Status add_group(GroupKind kind, const std::string& key, const FleetGroup& group);

  /// The run both have, if there is one.
  [[nodiscard]] const FleetRun* common_run(const Fleet& other) const;
  /// Runs of the same host that overlap in time: what both saw is counted twice.
  [[nodiscard]] std::vector<std::pair<const FleetRun*, const FleetRun*>> overlaps(size_t at_most) const;

  uint64_t processes = 0;
  uint64_t window_ns = 0;  // summed over processes
  Transitions transitions;
  FleetCounters counters;
  PartialSum rss_bytes, lazyfree_bytes;
  std::array<uint64_t, group_kinds> folded{};  // groups that were not told apart

  [[nodiscard]] const std::map<Key, FleetRun>& runs() const { return runs_; }
  [[nodiscard]] const std::map<std::string, FleetGroup>& groups(GroupKind kind) const {
    return groups_[static_cast<size_t>(kind)];
  }
  [[nodiscard]] size_t hosts() const;
  /// Over all runs.
  [[nodiscard]] std::array<PartialSum, JT_LOSSES> losses() const;
  [[nodiscard]] PartialSum cpu_ns() const;

 private:
  std::map<Key, FleetRun> runs_;
  std::array<std::map<std::string, FleetGroup>, group_kinds> groups_;
};

/// Adds `part`; false when a sum does not fit, and `to` is then of no use.
bool add(Histogram& to, const Histogram& part);
bool add(PartialSum& to, const PartialSum& part);
bool add(FleetGroup& to, const FleetGroup& part);
bool add(FleetCounters& to, const FleetCounters& part);
bool add(Transitions& to, const Transitions& part);

}  // namespace jemtrace::ledger
