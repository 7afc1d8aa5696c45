#pragma once

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "util/file.hpp"

namespace jemtrace::discover {

/// A process as /proc shows it. All strings are untrusted.
struct Process {
  pid_t pid = 0;
  uint64_t start_time_ns = 0;  // since boot, in steps of 10 ms: with the pid it names one process for ever
  std::string comm;
  std::string exe;           // target of /proc/PID/exe; empty for kernel threads
  std::string cgroup;        // path in the v2 hierarchy, else of the v1 memory controller
  std::optional<uid_t> uid;  // real; nullopt: unreadable, and so nobody's
};

/// Fields 2 (comm, may hold spaces and parentheses), 3 and 22 (start time, ticks) of /proc/PID/stat.
struct Stat {
  std::string_view comm;
  char state = '?';  // R, S, D, T (stopped), Z, ...
  uint64_t start_ticks = 0;
};
std::optional<Stat> parse_stat(std::string_view text);

/// The path that matters for memory out of /proc/PID/cgroup.
std::string_view parse_cgroup(std::string_view text);

/// Real uid out of /proc/PID/status.
std::optional<uid_t> parse_uid(std::string_view status);

/// True when this very process is gone or a zombie: its mappings are then empty, whatever it used.
bool has_ended(const ProcRoot& proc, const Process& process);

/// Whether a signal has stopped it; nullopt when it is gone.
std::optional<bool> is_stopped(const ProcRoot& proc, pid_t pid);

/// Errc::gone when it does not exist.
Result<Process> read_process(const ProcRoot& proc, pid_t pid);

}  // namespace jemtrace::discover
