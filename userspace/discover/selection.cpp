#include "discover/selection.hpp"

#include <algorithm>

#include "util/text.hpp"

namespace jemtrace::discover {
namespace {

bool is_below(std::string_view path, std::string_view top) {
  // A path as people copy it: with the mount point, with or without slashes at its ends.
  while (top.size() > 1 && top.back() == '/') {
    top.remove_suffix(1);
  }
  if (top == "/") {
    return true;
  }
  return path.substr(0, top.size()) == top && (path.size() == top.size() || path[top.size()] == '/');
}

}  // namespace

bool Selection::matches(const Process& process) const {
  if (everything()) {
    return true;
  }
  const std::string file_name = process.exe.substr(process.exe.rfind('/') + 1);
  return std::find(pids.begin(), pids.end(), process.pid) != pids.end() ||
         std::any_of(name_globs.begin(), name_globs.end(),
                     [&](const auto& glob) {
                       return glob_match(glob, process.comm) || glob_match(glob, file_name);
                     }) ||
         std::any_of(cgroups.begin(), cgroups.end(),
                     [&](const auto& cgroup) { return is_below(process.cgroup, cgroup); }) ||
         std::find(users.begin(), users.end(), process.uid) != users.end();
}

}  // namespace jemtrace::discover
