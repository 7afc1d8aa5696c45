#pragma once

#include <sys/types.h>

#include <array>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "jemtrace/abi.h"
#include "ledger/histogram.hpp"
#include "ledger/kernel.hpp"
#include "ledger/reading.hpp"
#include "ledger/series.hpp"

/// What the tool knows, as plain data: filled by a live trace or a recording, read by explain and render.
/// optional: nullopt is "unknown", which is never shown as 0.
namespace jemtrace::ledger {

template <typename T>
using Maybe = std::optional<T>;

struct Header {
  std::string jemtrace_version, kernel, host;
  int64_t start_unix_ns = 0;
  Maybe<uint64_t>
      start_mono_ns;  // CLOCK_MONOTONIC at the same moment: turns the ts_ns of events into a time of day
  std::vector<std::string> command;
};

struct RoleInfo {
  uint64_t offset = 0;
  std::string found_by;
  std::string probe = "none";     // none, entry, entry_return
  Maybe<std::string> cost_class;  // emulated, single_step; unset when not probed
};

struct ImageInfo {
  std::string path;  // untrusted: escape when printing
  std::string build_id, version, prefix, linkage, tier;
  std::map<std::string, RoleInfo> roles;
  std::vector<std::string> missing;
  std::vector<std::string> notes;
};

/// One option: its value and where that comes from ("MALLOC_CONF in its environment", "default of 5.3.0").
struct Setting {
  std::string value, source;
  bool changed = false;  // by the program itself, since its start
};

/// As the path of a cgroup tells.
struct ContainerInfo {
  std::string runtime;  // "docker", "containerd", "cri-o", "podman"; empty: unknown
  std::string id;       // 12 hexadecimal digits
  std::string pod_uid;  // empty: in no pod
};

struct TargetInfo {
  pid_t pid = 0;
  uint64_t start_time_ns = 0;     // since boot
  std::string comm, exe, cgroup;  // untrusted
  Maybe<ContainerInfo> container;
  std::vector<ImageInfo> images;
  std::map<std::string, Setting> conf;  // by jemalloc's option names; absent: unknown
  bool conf_is_effective = false;       // as the process has them, not only as they were asked for
  std::string conf_unknown_because;     // a clause, when `conf` is empty
};

/// A value and how it was got.
struct Sampled {
  uint64_t value = 0;
  std::string method;  // "statm", "smaps_rollup"
  uint64_t age_ms = 0;
};

struct Sample {
  Maybe<Sampled> rss_bytes, lazyfree_bytes;
};

struct States {
  Maybe<uint64_t> allocated_bytes, active_bytes, dirty_bytes, muzzy_bytes, retained_bytes;
  std::string method;  // how they were read; empty when they were not
  Maybe<uint64_t> age_ms;
};

/// The sums over all arenas; `age_ms` is 0.
States states_of(const Reading& reading, uint64_t page_bytes);

struct TransitionTotals {
  std::array<Histogram, JT_PAYERS> by_payer;
  [[nodiscard]] Histogram total() const;
};
using Transitions = std::array<TransitionTotals, JT_TRANSITIONS>;

struct CallSiteTotals {
  std::string image;                   // file name of the image; empty: not in a jemalloc
  std::vector<uint64_t> frames;        // file offsets of the return addresses, innermost first
  std::vector<std::string> functions;  // what they lie in, where known; same length or empty
  jt_syscall syscall = JT_SYS_NONE;
  int advice = 0;
  jt_purpose purpose = JT_UNCLASSIFIED;
  uint64_t calls = 0, bytes = 0, failed = 0, total_ns = 0;
};

struct ThreadWork {
  pid_t tid = 0;
  std::string comm;  // untrusted
  jt_payer payer = JT_PAYER_APP;
  uint64_t calls = 0, latency_ns = 0, bytes = 0;
};

/// Memory syscalls of all purposes.
uint64_t calls(const jt_counters& counters);

/// All that happened to one target since a moment.
struct Totals {
  Transitions transitions;
  jt_counters counters{};
  /// What came since `earlier`, an older state of the same target.
  [[nodiscard]] Totals since(const Totals& earlier) const;
  /// Takes back what was said of the caches that sweeps were of. What MADV_FREE was done to was dirty all the
  /// same.
  void forget_sources();
};

struct Interval {
  pid_t pid = 0;
  std::string comm;
  int64_t unix_ns = 0;
  uint64_t window_ns = 0;
  Totals delta;
  Sample sample;
  States states;
};

struct RssAccount {
  Maybe<uint64_t> start_bytes, end_bytes, max_bytes, lazyfree_end_bytes;
  Maybe<int64_t> purge_delta_bytes;
  uint64_t purge_delta_error_bytes = 0;
};

/// What is resident beyond what the program uses, over the time of the trace: the number to watch.
struct Overhead {
  std::string
      of;  // "rss_minus_allocated", or "rss_minus_active" where that is unknown; empty: neither is known
  TrendReport trend;
};

/// How much the kernel wanted memory back.
struct Pressed {
  Maybe<Pressure> pressure;         // at the end: of the target's cgroup, else of the host
  Maybe<uint64_t> lazyfreed_pages;  // pglazyfreed during the trace, of the same
  std::string of;                   // "cgroup" or "host"
};

/// What the touches of purged pages within some time of their purge add up to.
struct Touched {
  uint64_t pages = 0;
  uint64_t most_pages = 0;  // had each fault that may have brought a huge page brought one
  uint64_t waiting_pages =
      0;  // untouched, but purged less than that time before the end: they may still come
};

/// Purged pages that came back. Not those of MADV_FREE: before the kernel has taken one, a touch raises no
/// fault.
struct Refaults {
  uint64_t purged_pages = 0;                                        // all of them
  uint64_t followed_pages = 0;                                      // the sample that all else is about
  std::array<uint64_t, JT_STATES> followed_from{}, touched_from{};  // by source state; within 60 s
  Touched within_1s, within_10s, within_60s;
  uint64_t evicted_pages = 0, evicted_chunks = 0;  // lost sight of within 60 s, not touched until then
  uint64_t watched_ns = 0;  // how long: nothing is known of pages that were away longer

  [[nodiscard]] Maybe<double> sampling_rate() const;  // unset: nothing was purged
  /// Which share of all purged pages is touched within that time. Exact when no page is waiting, else an
  /// estimate that takes later purges to be like earlier ones. Unset: more than half have not had the time,
  /// or none has, as the watching was shorter.
  [[nodiscard]] Maybe<double> share(const Touched& within) const;
  /// It is no less than this, whatever becomes of the waiting pages.
  [[nodiscard]] Maybe<double> least_share(const Touched& within) const;
  /// `share`, had each fault that may have brought a huge page brought one.
  [[nodiscard]] Maybe<double> most_share(const Touched& within) const;
};

/// Followed pages that have not been touched yet, at the end.
struct Waiting {
  std::array<uint64_t, JT_REFAULT_LATER> pages{};  // purged less than 1 s, 10 s, 60 s ago
  std::array<uint64_t, JT_REFAULT_AGES>
      maybe_huge{};  // faults that may have brought a huge page, not settled
};

/// `watched_ns`: since when the target is watched. `huge_pages`: can a fault in this process bring one?
Refaults refaults(const jt_refaults& counted, const Waiting& waiting, uint64_t watched_ns, bool huge_pages);

/// Huge pages that the kernel made of a target's small ones during the trace (khugepaged, MADV_COLLAPSE).
/// That fills the holes that purges left, with no fault and nobody asking for the memory.
struct Collapses {
  uint64_t huge_pages = 0;    // made; 2 MiB each
  uint64_t filled_bytes = 0;  // of them, what was not resident before: purged, or never touched
};

/// What a program asked its own jemalloc (mallctl, mallctlbymib), seen from outside: the latest answers.
struct Asked {
  struct Value {
    std::string name;  // "stats.active"; untrusted
    uint64_t value = 0;
    Maybe<uint64_t> age_ms;  // since the program had it counted (epoch); unset: that was not seen
  };
  std::vector<Value> values;             // by name
  uint64_t compared = 0, different = 0;  // how often with its structures, and how often they disagreed
  uint64_t skipped = 0;                  // answers not looked at, of all programs: there were too many
};

struct Cost {
  Maybe<uint64_t> bpf_run_ns;  // estimate from 1 in 64 calls; without the programs on probes and page faults
  uint64_t events = 0;         // memory syscalls and probe hits seen
  uint64_t probe_hits = 0;     // of each thread up to its last purge
  uint64_t sampling_ns = 0;    // reading /proc
  uint64_t cpu_ns = 0;         // jemtrace's own, user and system
  uint64_t max_rss_bytes = 0;  // jemtrace's own
  /// Calls that were timed for bpf_run_ns: its relative standard error is about 1/sqrt of their number.
  uint64_t bpf_samples = 0;
};

/// nullopt: not counted by this kernel, or unreadable.
using Losses = std::array<std::optional<uint64_t>, JT_LOSSES>;

struct Summary {
  TargetInfo target;
  uint64_t window_ns = 0;
  bool exited = false;
  Totals totals;
  std::vector<ThreadWork> payers;         // most work first
  std::vector<CallSiteTotals> callsites;  // most calls first
  RssAccount rss;
  States states;  // at the end
  Overhead overhead;
  Pressed pressed;
  Maybe<Refaults> refaults;    // unset: not measured
  Maybe<Collapses> collapses;  // unset: this kernel does not say
  Maybe<Asked> asked;          // unset: not looked at
  Losses losses{};             // of the whole host: a lost event has no owner
  Cost cost;
  bool decommit = false;  // vm.overcommit_memory is 2: pages go back by mmap(PROT_NONE), not by MADV_DONTNEED
  bool exact = false;     // every role that exactness needs was probed for the whole life of the process
  std::vector<std::string> caveats;  // one sentence each: what was missed or could not be measured
};

/// With --events.
struct TransitionEvent {
  jt_call_event raw;
  bool from_history = false;  // no probe told the source state: the range's own history did
};

/// With --events: a sweep that purged something.
struct SweepEvent {
  uint64_t ts_ns = 0;  // CLOCK_MONOTONIC, its start
  pid_t pid = 0, tid = 0;
  std::string comm;  // untrusted
  jt_state state = JT_STATE_UNKNOWN;
  jt_cause cause = JT_CAUSE_UNKNOWN;
  Maybe<uint32_t> arena;
  Maybe<uint64_t> limit_pages;  // npages_limit
  uint64_t extents = 0, bytes = 0;
  uint64_t latency_ns = 0;  // to the end of its last purge
};

/// jemalloc's spelling of what moved: "dirty_muzzy", ...
const char* name(jt_transition transition);
const char* name(jt_state state);
const char* name(jt_payer payer);
const char* name(jt_cause cause);
const char* name(jt_syscall syscall);
const char* name(jt_purpose purpose);  // "sweep", "oversize", "zero_fill", ...
const char* name(jt_loss loss);  // "ring_events", "map_full", "unmatched_exit", ... (the keys of `losses`)

}  // namespace jemtrace::ledger
