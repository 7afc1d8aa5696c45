#pragma once

#include "ledger/reading.hpp"
#include "read/call/caller.hpp"

namespace jemtrace::read {

struct CallOptions {
  /// Write "epoch" first: jemalloc takes nearly all its mutexes in turn and counts everything anew. Without
  /// it stats.* are of the last time that the program did so, or of the first use of mallctl.
  bool epoch = false;
  bool classes = false;  // also the size classes: some hundred calls more
};

/// What mallctl(3) says, asked within the process.
Result<ledger::Reading> call(Caller& caller, const CallOptions& options);

}  // namespace jemtrace::read
