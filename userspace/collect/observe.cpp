#include "collect/observe.hpp"

#include <fmt/format.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>

#include "sample/cgroup.hpp"
#include "sample/host.hpp"
#include "sample/memory.hpp"
#include "sample/pages.hpp"
#include "sample/smaps.hpp"
#include "util/text.hpp"

namespace jemtrace::collect {
namespace {

using Clock = std::chrono::steady_clock;

/// For all ranges of one process together: 100 GB of retained memory that is not resident take 0.2 s.
constexpr auto page_map_limit = std::chrono::seconds(5);

/// MADV_FREE marks pages in batches of up to 31 on each CPU (PAGEVEC_SIZE).
constexpr uint64_t lazyfree_batch = 31;

/// What is resident of one kind of ranges. Its time is taken from what is left.
class PageMap {
 public:
  PageMap(const ProcRoot& proc, pid_t pid) : proc_(proc), pid_(pid), until_(Clock::now() + page_map_limit) {}

  ledger::Maybe<ledger::Residency> of(const ledger::Maybe<std::vector<ledger::Range>>& ranges, bool lazily) {
    if (!ranges) {
      return std::nullopt;
    }
    auto found = sample::residency(proc_, pid_, *ranges, lazily, until_ - Clock::now());
    return found ? ledger::Maybe<ledger::Residency>(*found) : std::nullopt;
  }

 private:
  const ProcRoot& proc_;
  pid_t pid_;
  Clock::time_point until_;
};

/// Page flags are dear, and needed only where smaps leaves open which pages are lazily freed: some in muzzy
/// ranges may have been written to, and some in others reused but not written to.
bool lazy_pages_are_ambiguous(const std::vector<ledger::Vma>& vmas, const ledger::Reading& reading,
                              uint64_t page_bytes) {
  uint64_t lazyfree = 0;
  for (const ledger::Vma& vma : vmas) {
    lazyfree += vma.lazyfree_bytes;
  }
  const uint64_t muzzy = reading.total(page_bytes).muzzy.value_or(0);
  return lazyfree > 0 && lazyfree < muzzy - muzzy / 16;
}

std::vector<ledger::ArenaResidency> residency_of(const ProcRoot& proc, pid_t pid,
                                                 const ledger::Reading& reading, bool lazily) {
  PageMap pages(proc, pid);
  std::vector<ledger::ArenaResidency> out;
  for (const ledger::ArenaReading& arena : reading.arenas) {
    out.push_back({.dirty = pages.of(arena.dirty.ranges, false),
                   .muzzy = pages.of(arena.muzzy.ranges, lazily),
                   .retained = pages.of(arena.retained.ranges, false),
                   .metadata = pages.of(arena.metadata, false)});
  }
  return out;
}

unsigned threads_of(const ProcRoot& proc, pid_t pid) {
  const auto tasks = ProcRoot(proc.of(pid, "task")).pids();
  return tasks ? static_cast<unsigned>(tasks->size()) : 1;
}

std::string kernel_release() {
  utsname host{};
  ::uname(&host);
  return host.release;
}

}  // namespace

uint64_t statm_lag_bytes(const std::string& release, unsigned cpus, unsigned threads, uint64_t page_bytes) {
  constexpr uint64_t counters = 3;                   // anonymous, file, shared
  constexpr uint64_t per_thread = 64;                // TASK_RSS_EVENTS_THRESH, in pages
  const uint64_t per_cpu = std::max(32u, 2 * cpus);  // percpu_counter_batch
  const auto [major, minor] = major_minor(release);
  if (major > 6 || (major == 6 && minor >= 16)) {
    return 0;
  }
  const bool per_cpu_counters = major == 6 && minor >= 2;
  return counters * page_bytes * (per_cpu_counters ? per_cpu * cpus : per_thread * threads);
}

ledger::Pressed kernel_memory(const ProcRoot& proc, pid_t pid, const sample::CgroupMounts& mounts) {
  const auto cgroup = sample::read_cgroup(proc, pid, mounts);
  if (cgroup && cgroup->pressure && cgroup->pglazyfreed) {
    return {cgroup->pressure, cgroup->pglazyfreed, "cgroup"};
  }
  const ledger::Host host = sample::read_host(proc);
  return {host.pressure, host.pglazyfreed, "host"};
}

ledger::Pressed pressed_since(const ledger::Pressed& start, ledger::Pressed now) {
  // Of an ended process the cgroup is unknown: a count of the host is no continuation of its.
  if (start.of == now.of && start.lazyfreed_pages && now.lazyfreed_pages >= start.lazyfreed_pages) {
    *now.lazyfreed_pages -= *start.lazyfreed_pages;
  } else {
    now.lazyfreed_pages.reset();
  }
  return now;
}

Result<Look> look_at(const ProcRoot& proc, pid_t pid, const ReadJemalloc& read) {
  const auto begin = Clock::now();
  Look out;
  ledger::Observation& seen = out.seen;
  seen.page_bytes = static_cast<uint64_t>(::sysconf(_SC_PAGESIZE));
  seen.rss_lag_bytes =
      statm_lag_bytes(kernel_release(), static_cast<unsigned>(::sysconf(_SC_NPROCESSORS_CONF)),
                      threads_of(proc, pid), seen.page_bytes);
  seen.lazyfree_lag_bytes =
      lazyfree_batch * static_cast<uint64_t>(::sysconf(_SC_NPROCESSORS_CONF)) * seen.page_bytes;
  ASSIGN_OR_RETURN(seen.rss_before_bytes, sample::read_rss(proc, pid));
  // Ranges, the mappings and the pages stand next to each other: what moves in between is the error.
  if (auto reading = read(true)) {
    seen.before = std::move(*reading);
  } else {
    out.unread_because = reading.error().message();
  }
  ASSIGN_OR_RETURN(seen.vmas, sample::read_smaps(proc, pid));
  if (seen.before) {
    const bool lazily = lazy_pages_are_ambiguous(seen.vmas, *seen.before, seen.page_bytes);
    seen.residency = residency_of(proc, pid, *seen.before, lazily);
  }
  if (seen.before) {
    if (auto reading = read(false)) {
      seen.after = std::move(*reading);
    }
  }
  ASSIGN_OR_RETURN(seen.rss_after_bytes, sample::read_rss(proc, pid));
  if (seen.rss_after_bytes == 0) {
    return fail(Errc::gone, fmt::format("pid {} has ended", pid));  // a zombie has no memory
  }
  if (auto cgroup = sample::read_cgroup(proc, pid, sample::CgroupMounts(proc))) {
    out.cgroup = std::move(*cgroup);
  }
  out.host = sample::read_host(proc);
  out.sampling_ns = static_cast<uint64_t>(std::chrono::nanoseconds(Clock::now() - begin).count());
  return out;
}

}  // namespace jemtrace::collect
