#pragma once

#include <string>

#include "util/fd.hpp"
#include "util/result.hpp"

namespace jemtrace::attach {

/// The tracefs file system, needed for the numbers of tracepoints. Where the host has not mounted it, an own
/// instance is opened that no other process sees and that goes away with this object (fsopen(2), Linux 5.2).
class Tracefs {
 public:
  static Result<Tracefs> open();
  /// The number of a tracepoint, as perf_event_open(2) wants it. Errc::unsupported when this kernel has none
  /// such.
  [[nodiscard]] Result<int> tracepoint_id(const std::string& category, const std::string& name) const;
  /// "mounted at /sys/kernel/tracing" or "own instance", for `jemtrace check`.
  [[nodiscard]] const std::string& origin() const { return origin_; }

 private:
  Tracefs(Fd root, std::string origin) : root_(std::move(root)), origin_(std::move(origin)) {}
  Fd root_;
  std::string origin_;
};

}  // namespace jemtrace::attach
