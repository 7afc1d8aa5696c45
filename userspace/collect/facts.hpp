#pragma once

#include <sys/types.h>

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "ledger/kernel.hpp"
#include "ledger/model.hpp"
#include "util/file.hpp"

/// What surrounds a process and bears on its memory: limits, threads, children, settings that were asked for.
namespace jemtrace::collect {

using ledger::Maybe;

struct ForkedChild {
  pid_t pid = 0;
  Maybe<uint64_t> rss_bytes;
};

/// Variables of the environment whose names end in MALLOC_CONF.
struct AskedFor {
  std::string variable;                        // untrusted
  std::map<std::string, std::string> options;  // untrusted
};

struct Facts {
  Maybe<uint64_t> locked_bytes;        // VmLck
  Maybe<uint64_t> background_threads;  // of jemalloc's name for them
  Maybe<double> cpus;                  // that it may use
  bool cpu_quota = false;              // `cpus` is its cgroup's quota, not its affinity
  Maybe<uint64_t> max_map_count;
  Maybe<std::vector<ForkedChild>> children;  // that have not called exec; alive
  Maybe<std::vector<AskedFor>> asked_for;  // nullopt: it has overwritten its environment, or it is unreadable
};

/// Costs some microseconds per thread and child; of either at most 1024 are looked at.
Facts read_facts(const ProcRoot& proc, pid_t pid);

/// What MADV_DONTNEED of a 4 KiB page costs here, measured on memory of our own: 4 MB, the best of 16 times,
/// 40 ms.
/// Without huge pages. nullopt when the memory is not to be had.
Maybe<double> measure_purge_ns_per_page();

/// The last kill for want of memory in the kernel's log. nullopt: none is there. Fails when it cannot be
/// read.
Result<Maybe<ledger::OomKill>> last_oom_kill(const std::string& path = "/dev/kmsg");
/// "Killed process 42 (app) total-vm:...kB, anon-rss:...kB, file-rss:...kB" with the time of its record.
Maybe<ledger::OomKill> parse_oom_record(std::string_view record);

}  // namespace jemtrace::collect
