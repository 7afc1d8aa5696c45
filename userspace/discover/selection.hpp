#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

#include "discover/process.hpp"

namespace jemtrace::discover {

/// Which processes the user asked for. The kinds add up: a process that one of them names is selected.
struct Selection {
  std::vector<pid_t> pids;
  std::vector<std::string> name_globs;  // over comm and over the file name of the program
  std::vector<std::string> cgroups;     // this one and all below it
  std::vector<uid_t> users;

  /// Nothing was asked for: every jemalloc process on the host.
  [[nodiscard]] bool everything() const {
    return pids.empty() && name_globs.empty() && cgroups.empty() && users.empty();
  }
  /// Only pids were named: processes that start later do not count.
  [[nodiscard]] bool only_pids() const {
    return !pids.empty() && name_globs.empty() && cgroups.empty() && users.empty();
  }
  [[nodiscard]] bool matches(const Process& process) const;
};

}  // namespace jemtrace::discover
