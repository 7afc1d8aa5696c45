#pragma once

#include <sys/types.h>

#include <optional>
#include <string>
#include <string_view>

#include "ledger/kernel.hpp"
#include "util/file.hpp"

namespace jemtrace::sample {

std::optional<ledger::Pressure> parse_pressure(std::string_view text);

/// Where a hierarchy is mounted, out of /proc/PID/mountinfo.
struct CgroupMount {
  std::string point, root;
};
/// The mount of a version 1 controller, or of version 2; nullopt when there is none.
std::optional<CgroupMount> find_cgroup_mount(std::string_view mountinfo, int version,
                                             std::string_view controller = "memory");

/// Where the hierarchies are mounted for us. Read once: on a host of containers that is a long text.
class CgroupMounts {
 public:
  explicit CgroupMounts(const ProcRoot& proc);
  [[nodiscard]] const std::optional<CgroupMount>& of(int version) const {
    return version == 1 ? first_ : second_;
  }

 private:
  std::optional<CgroupMount> first_, second_;
};

/// The path of a process in that hierarchy, out of /proc/PID/cgroup; nullopt when it is in none.
std::optional<std::string_view> find_cgroup_path(std::string_view text, int version,
                                                 std::string_view controller = "memory");

/// Reads the files of the cgroup that limits this process's memory: version 1 where its memory controller is
/// in use. Costs 50 to 100 us. Errc::unsupported when no hierarchy with a memory controller is mounted.
Result<ledger::Cgroup> read_cgroup(const ProcRoot& proc, pid_t pid, const CgroupMounts& mounts);

}  // namespace jemtrace::sample
