#pragma once

#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "cli/call_options.hpp"
#include "collect/inspect.hpp"
#include "ledger/reading.hpp"
#include "read/call/caller.hpp"
#include "render/output.hpp"

namespace jemtrace::cli {

/// A process in which mallctl can be called. Owns what it was found by.
class Callee {
 public:
  static Result<std::unique_ptr<Callee>> open(pid_t pid);
  [[nodiscard]] read::Caller& caller() { return *caller_; }
  [[nodiscard]] const discover::Process& process() const { return placed_.process; }

 private:
  collect::PlacedImages placed_;
  std::optional<read::Caller> caller_;
};

/// What was changed in the process because the user asked for it.
struct Actions {
  std::vector<read::Change> changes;
  bool purged = false, decayed = false;
  std::optional<uint64_t> rss_before, rss_after;  // around a purge or decay
};
Result<Actions> act(Callee& callee, const CallOptions& options);
/// For people: "dirty_decay_ms  5 arenas and those to come: 10000 -> 500". One line each.
std::vector<std::string> describe(const Actions& actions, const CallOptions& options);
/// "213 calls ..., the longest pause of the thread 1.9 ms".
std::string describe_pause(const read::Caller& caller);

/// The account of one process, with what `process.read` says.
Result<render::StatsReport> report_on(const ProcRoot& proc, const collect::Inspected& process);

/// The epoch, if asked for, and all values.
Result<ledger::Reading> read_by_call(Callee& callee, const CallOptions& options);

}  // namespace jemtrace::cli
