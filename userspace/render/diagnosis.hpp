#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "ledger/finding.hpp"
#include "ledger/model.hpp"
#include "render/reports.hpp"

namespace jemtrace::render {

/// Purging in a window, from who pays to whether it was worth it.
struct PurgeCost {
  uint64_t calls = 0, bytes = 0, time_ns = 0, max_ns = 0;
  uint64_t app_calls = 0, app_time_ns = 0, app_p99_ns = 0;
  uint64_t oversize_calls = 0, oversize_time_ns = 0;
  ledger::Waits waits;
  ledger::Maybe<double> ns_per_page, baseline_ns_per_page;
  ledger::Maybe<double> touched_again;  // share within 10 s
};

/// All that diagnose says of one process.
struct DiagnosisReport {
  ledger::TargetInfo target;
  uint64_t window_ns = 0;
  bool exited = false;
  std::vector<ledger::Finding> findings;                        // most severe first
  std::vector<std::pair<std::string, std::string>> unmeasured;  // an id, and why it could not be judged
  ledger::Maybe<PurgeCost> purging;
  ledger::Maybe<uint64_t> lazily_taken_bytes;  // by the kernel within the window, of what was freed lazily
  ledger::Maybe<StatsReport> memory;  // at the end; unset: it could not be read, or the process has ended
};

/// What --flush-lazyfree did.
struct FlushReport {
  pid_t pid = 0;
  std::string comm;  // untrusted
  ledger::Maybe<uint64_t> lazyfree_before_bytes, lazyfree_after_bytes;
  uint64_t rss_before_bytes = 0, rss_after_bytes = 0;
  uint64_t advised_bytes = 0, ranges = 0, took_ns = 0;
};

const char* name(ledger::Severity severity);  // "ok", "info", "warning", "critical"

}  // namespace jemtrace::render
