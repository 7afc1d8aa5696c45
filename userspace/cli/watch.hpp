#pragma once

#include <chrono>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "advise/advice.hpp"
#include "discover/selection.hpp"
#include "util/result.hpp"

namespace jemtrace::cli {

struct WatchOptions {
  discover::Selection selection;
  std::vector<std::string> command;                // instead of a selection
  std::map<std::string, std::string> environment;  // added to the command's
  std::optional<std::chrono::milliseconds> duration;
};

/// A process whose states were read many times a second while its purges were traced.
struct Watched {
  ledger::TargetInfo info;
  ledger::Summary summary;
  advise::Activity activity;
  advise::Measured measured;
  std::string unread_because;             // a clause, when no state was ever read
  uint64_t readings = 0, reading_ns = 0;  // our time
};

struct WatchResult {
  std::vector<Watched> processes;  // in the order in which they were found
  std::optional<int> exit_status;  // of the command
  double wall_s = 0, cpu_s = 0;    // of the command and what it waited for
  bool interrupted = false;
};

/// Reads every 10 ms, or as seldom as it takes for reading to stay below 2 % of one CPU of ours. The process
/// itself is not stopped.
Result<WatchResult> watch(const WatchOptions& options);

/// What the simulator needs to know of it. `error`: why it cannot be simulated.
Result<advise::Input> make_input(const Watched& process);

/// The variable that its settings are read from; empty: unknown.
std::string conf_variable_of(const ledger::TargetInfo& info);

}  // namespace jemtrace::cli
