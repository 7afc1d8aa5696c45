#pragma once

#include <sys/types.h>

#include <compare>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "ledger/account.hpp"
#include "ledger/kernel.hpp"
#include "ledger/model.hpp"
#include "ledger/reading.hpp"

/// What a diagnosis may rest on: filled by a live watch, by an interval of a trace, or by a recording. Every
/// number may be unknown, and a rule that needs an unknown one says so instead of guessing.
namespace jemtrace::explain {

using ledger::Maybe;

/// 5.3.1 is {5, 3, 1}; all 0: unknown.
struct Version {
  int major = 0, minor = 0, patch = 0;
  auto operator<=>(const Version&) const = default;  // NOLINT(modernize-use-nullptr): of what it makes
  [[nodiscard]] bool known() const { return major != 0; }
};
/// Out of "5.3.0-0-g54eaed1d..."; a development version counts as what it was built on.
Version parse_version(const std::string& text);

/// One moment of the process, from both sides. Bytes, unless the name says otherwise.
struct Moment {
  uint64_t at_ns = 0;  // CLOCK_MONOTONIC
  // The kernel's side.
  Maybe<uint64_t> rss, lazyfree, anon_huge, locked, vmas;
  Maybe<uint64_t> shared_anonymous;  // anonymous pages that another process maps, too
  Maybe<ledger::Cgroup> cgroup;
  ledger::Host host;
  // jemalloc's books, summed over arenas.
  Maybe<uint64_t> allocated, active, dirty, muzzy, retained;
  // What of RSS is none of jemalloc's, or was given back and is there again: ledger::Account.
  Maybe<uint64_t> other_heap, retained_resident;
  Maybe<uint64_t> muzzy_gone;  // of `muzzy`: not resident, so the kernel took it, or nobody ever touched it
  Maybe<uint64_t> uncertain;   // of `other_heap`: may be jemalloc's
};

/// What an arena holds, at the end of the window.
struct Arena {
  uint32_t index = 0;
  Maybe<uint64_t> dirty;  // bytes
  Maybe<int64_t> dirty_decay_ms;
  /// Since it last looked at its decay clock. nullopt: unknown.
  Maybe<uint64_t> idle_ns;
};

/// A variable of the environment that looks like jemalloc's, and what it asks for.
struct Request {
  std::string variable;                        // untrusted: "MALLOC_CONF"
  std::map<std::string, std::string> options;  // untrusted
};

/// A process that was forked from this one and did not call exec.
struct Child {
  pid_t pid = 0;
  Maybe<uint64_t> rss;
};

struct Inputs {
  pid_t pid = 0;
  bool exited = false;
  Version version;
  std::string conf_variable;                    // "MALLOC_CONF", with the image's prefix
  std::map<std::string, ledger::Setting> conf;  // effective where that is known
  bool conf_is_effective = false;
  Maybe<std::vector<Request>> requests;             // nullopt: the environment could not be read
  std::map<std::string, std::string> boot_options;  // opt_*, as jemalloc understood them
  bool many_images = false;  // several jemallocs in the process: options are of the first

  uint64_t page_bytes = 4096;
  uint64_t window_ns = 0;
  Moment start, end;
  std::vector<Arena> arenas;           // empty: unknown
  Maybe<uint64_t> background_threads;  // threads of jemalloc's name for them
  double cpus = 0;                     // that it may use: quota of its cgroup, else affinity; 0: unknown
  bool cpu_quota = false;              // `cpus` is a quota
  Maybe<uint64_t> max_map_count;

  Maybe<ledger::Totals> work;        // what was purged in the window; nullopt: nothing was traced
  Maybe<ledger::Refaults> refaults;  // of it, what came back
  bool sources_known = true;         // dirty and muzzy purges can be told apart
  ledger::Waits waits;
  Maybe<ledger::Collapses> collapses;  // huge pages made in this process within the window
  Maybe<double> baseline_ns_per_page;  // what MADV_DONTNEED of 4 KiB pages costs on this host

  Maybe<std::vector<Child>> children;  // forked, alive at the end
  std::vector<ledger::OomKill> ooms;   // newest first
  uint64_t now_ns = 0;                 // CLOCK_MONOTONIC, of the end of the window

  [[nodiscard]] std::string option(const std::string& name) const;  // "" when unknown
  [[nodiscard]] double window_s() const { return static_cast<double>(window_ns) / 1e9; }
};

/// Purges of the window as a sum: without what was only unmapped after having been given back before.
struct PurgeWork {
  uint64_t calls = 0, bytes = 0, ns = 0;
  uint64_t app_ns = 0, app_bytes = 0, app_calls = 0, app_p99_ns = 0;
  uint64_t p50_ns = 0, p99_ns = 0, max_ns = 0;
  uint64_t oversize_bytes = 0, oversize_ns = 0, oversize_calls = 0;
};
PurgeWork purge_work(const ledger::Totals& totals);

/// What the kernel took within the window of what this process had freed lazily.
Maybe<uint64_t> lazily_taken(const Inputs& in);

/// `end - start` where both are known and it does not fall.
Maybe<uint64_t> grown(const Maybe<uint64_t>& start, const Maybe<uint64_t>& end);

}  // namespace jemtrace::explain
