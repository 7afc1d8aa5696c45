#pragma once

#include <algorithm>
#include <string>

#include "explain/explain.hpp"
#include "explain/thresholds.hpp"

/// A process in which all is well and everything is known, to change one thing in.
namespace jemtrace::explain {

constexpr uint64_t seconds_ns = 1'000'000'000;

inline Inputs well() {
  Inputs in;
  in.pid = 42;
  in.version = {5, 3, 0};
  in.conf_variable = "MALLOC_CONF";
  in.conf = {{"dirty_decay_ms", {"10000", "default"}}, {"background_thread", {"false", "default"}}};
  in.conf_is_effective = true;
  in.requests.emplace();
  in.window_ns = 30 * seconds_ns;
  in.start.rss = 400 * mib;
  in.start.lazyfree = 0;
  in.start.anon_huge = 0;
  in.start.locked = 0;
  in.start.vmas = 100;
  in.start.shared_anonymous = 0;
  in.start.allocated = 290 * mib;
  in.start.active = 300 * mib;
  in.start.dirty = 10 * mib;
  in.start.muzzy = 0;
  in.start.retained = 100 * mib;
  in.start.other_heap = 5 * mib;
  in.start.retained_resident = 0;
  in.start.uncertain = 0;
  in.start.cgroup = ledger::Cgroup{.path = "/app",
                                   .usage_bytes = 420 * mib,
                                   .limit_bytes = 1024 * mib,
                                   .anon_bytes = 395 * mib,
                                   .file_bytes = 20 * mib,
                                   .kernel_bytes = 2 * mib,
                                   .pressure = ledger::Pressure{}};
  in.start.host.pglazyfreed = 1000;
  in.start.host.pgsteal_file = 50'000;
  in.start.host.workingset_refault_file = 0;
  in.start.host.nr_anon_partially_mapped = 0;
  in.start.host.pressure = ledger::Pressure{};
  in.end = in.start;
  in.arenas = {{.index = 0, .dirty = 10 * mib, .dirty_decay_ms = 10'000, .idle_ns = 100'000'000}};
  in.background_threads = 0;
  in.cpus = 4;
  in.max_map_count = 65'530;
  in.work.emplace();
  in.refaults.emplace();
  in.waits = {.lock_ns = 0, .locks = 0, .remote_flushes = 0, .reclaim_ns = 0, .reclaims = 0};
  in.collapses.emplace();
  in.baseline_ns_per_page = 100;
  in.children.emplace();
  return in;
}

/// `calls` purges of `bytes` each, `ns` long.
inline void purge(Inputs& in, jt_payer payer, unsigned calls, uint64_t bytes, uint64_t ns) {
  for (unsigned i = 0; i < calls; ++i) {
    in.work->transitions[JT_DIRTY_RETAINED].by_payer[payer].record(ns, 1, bytes);
  }
}

inline std::string first_of(const Inputs& in) {
  const Evaluation evaluation = evaluate(in);
  return evaluation.findings.empty() ? "" : evaluation.findings.front().id;
}

inline bool unmeasured(const Inputs& in, const std::string& id) {
  const Evaluation evaluation = evaluate(in);
  return std::any_of(evaluation.unmeasured.begin(), evaluation.unmeasured.end(),
                     [&](const Unmeasured& one) { return one.id == id; });
}

}  // namespace jemtrace::explain
