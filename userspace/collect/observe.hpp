#pragma once

#include <sys/types.h>

#include <functional>
#include <string>

#include "ledger/account.hpp"
#include "ledger/kernel.hpp"
#include "ledger/model.hpp"
#include "sample/cgroup.hpp"
#include "util/file.hpp"
#include "util/result.hpp"

/// Looks at one process once, from both sides: jemalloc's and the kernel's.
namespace jemtrace::collect {

/// Reads jemalloc's numbers in the process; with the ranges of what it holds back when asked.
using ReadJemalloc = std::function<Result<ledger::Reading>(bool with_ranges)>;

struct Look {
  ledger::Observation seen;
  std::string unread_because;  // a clause, when jemalloc could not be read
  ledger::Maybe<ledger::Cgroup> cgroup;
  ledger::Host host;
  uint64_t sampling_ns = 0;  // our time
};

/// Costs 3 ms of ours per GB resident, and as much again per GB that jemalloc holds back; the kernel holds
/// the target's mmap lock for one mapping, or 2 MB, at a time. Errc::gone when the process has ended.
Result<Look> look_at(const ProcRoot& proc, pid_t pid, const ReadJemalloc& read);

/// How short memory is for this process, and the pages that the kernel took back lazily so far: of its cgroup
/// where that counts them, else of the host. Costs 0.1 to 0.3 ms.
ledger::Pressed kernel_memory(const ProcRoot& proc, pid_t pid, const sample::CgroupMounts& mounts);
/// `now`, with what came since `start`.
ledger::Pressed pressed_since(const ledger::Pressed& start, ledger::Pressed now);

/// By how much /proc/PID/statm may differ from the page tables under this release of Linux: its counters were
/// per thread before 6.2, and per CPU and not summed up until 6.16.
uint64_t statm_lag_bytes(const std::string& release, unsigned cpus, unsigned threads, uint64_t page_bytes);

}  // namespace jemtrace::collect
