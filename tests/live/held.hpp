#pragma once

#include "live.hpp"

/// The workload `held`, and what `jemtrace stats` says of it.
namespace jemtrace::live {

constexpr uint64_t mib = uint64_t{1} << 20;

/// `held`, standing still in a state.
class Held {
 public:
  /// `wrapper`: what runs it. `more`: further arguments of it.
  Held(const std::string& program, const std::string& state, const std::string& conf,
       const Strings& wrapper = {}, const Strings& more = {});

  /// As we know it: in a pid namespace of its own it has another one.
  pid_t pid() const { return pid_; }
  uint64_t truth(const std::string& key) const { return truth_->number(key); }
  Process& process() { return process_; }
  Json stats() const;

 private:
  static Strings with(Strings wrapper, const std::string& program, const std::string& state,
                      const Strings& more);

  Process process_;
  pid_t pid_ = -1;
  std::optional<Block> truth_;
};

/// `jemtrace stats -f json -p PID OPTIONS`; throws when it fails.
Json stats_of(pid_t pid, const Strings& options = {});

/// Of /proc/PID/smaps_rollup, with its colon, in bytes.
uint64_t smaps_rollup(pid_t pid, const std::string& field);

/// Within 1 % or 1 MB of what the kernel says, and not further from it than the printed bound.
void expect_sums_to_rss(const Json& stats, pid_t pid);

/// jemalloc's side of the account is what the workload read itself.
void expect_equals_mallctl(const Json& stats, const Held& held);

}  // namespace jemtrace::live
