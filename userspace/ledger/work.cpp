#include "ledger/work.hpp"

#include <algorithm>
#include <cstring>
#include <numeric>

namespace jemtrace::ledger {
namespace {

/// The next touch raises a fault. The same is in bpf/refault.bpf.h.
bool takes_pages(uint8_t transition) {
  return transition == JT_DIRTY_RETAINED || transition == JT_MUZZY_RETAINED ||
         transition == JT_UNKNOWN_RETAINED;
}

}  // namespace

jt_state source_of(jt_transition transition) {
  switch (transition) {
    case JT_DIRTY_MUZZY:
    case JT_DIRTY_RETAINED:
    case JT_DIRTY_RETURNED:
      return JT_STATE_DIRTY;
    case JT_MUZZY_RETAINED:
    case JT_MUZZY_RETURNED:
      return JT_STATE_MUZZY;
    case JT_RETAINED_RETURNED:
      return JT_STATE_RETAINED;
    default:
      return JT_STATE_UNKNOWN;
  }
}

void add(jt_counters& counters, const jt_work_key& key, const jt_work& work) {
  const jt_hist& done = work.done;
  const jt_state from = source_of(static_cast<jt_transition>(key.transition));
  if (key.purpose < JT_PURPOSES) {
    jt_calls& calls = counters.by_purpose[key.purpose];
    calls.calls += done.count + work.untimed + work.failed;
    calls.bytes += done.bytes + work.failed_bytes;
    calls.total_ns += done.sum_ns + work.failed_ns;
    calls.failed += work.failed;
  }
  counters.probe_hits += work.probe_hits;
  if (takes_pages(key.transition)) {
    // Read while the kernel side adds: a call's early pages may be there before its bytes.
    const uint64_t pages = done.bytes >> JT_PAGE_SHIFT;
    counters.refaults.followed_pages[from] += pages - std::min(pages, work.early_pages);
  }
  if (key.purpose == JT_DESTROY) {
    return;  // no decay, and RSS is not looked at
  }
  counters.rss_delta_bytes += work.rss_delta_bytes;
  counters.has_rss_delta |= done.count + work.untimed + work.failed > work.unread_rss ? 1 : 0;
  const uint64_t extents = done.extents + work.failed_extents - work.again_extents;
  jt_decay_counters& decay = counters.decay[from];
  decay.nmadvise += extents;
  decay.purged += (done.bytes + work.failed_bytes - work.again_bytes) >> JT_PAGE_SHIFT;
  decay.npurge += std::accumulate(std::begin(work.sweeps), std::end(work.sweeps), uint64_t{0});
  for (size_t cause = 0; cause < JT_CAUSES; ++cause) {
    counters.sweeps[from][cause] += work.sweeps[cause];
  }
  counters.oversize_extents += key.purpose == JT_PURGE_OVERSIZE ? extents : 0;
}

void add(Totals& totals, const jt_work_key& key, const jt_work& work) {
  add(totals.counters, key, work);
  if (key.transition < JT_TRANSITIONS && key.payer < JT_PAYERS) {
    totals.transitions[key.transition].by_payer[key.payer].merge(Histogram(work.done));
  }
}

void Payers::add(const jt_work_key& key, const jt_work& work) {
  const bool shared = (key.who & JT_SHARED_WORK) != 0;
  const uint32_t tid = shared ? 0 : key.who;
  ThreadWork& thread = by_tid_[tid];
  thread.tid = static_cast<pid_t>(tid);
  thread.comm = shared ? "(other threads)" : std::string(work.comm, ::strnlen(work.comm, sizeof work.comm));
  thread.payer = static_cast<jt_payer>(key.payer);
  thread.calls += work.done.count + work.untimed + work.failed;
  thread.latency_ns += work.done.sum_ns + work.failed_ns;
  thread.bytes += work.done.bytes + work.failed_bytes;
}

std::vector<ThreadWork> Payers::sorted() const {
  std::vector<ThreadWork> out;
  for (const auto& [tid, thread] : by_tid_) {
    out.push_back(thread);
  }
  std::stable_sort(out.begin(), out.end(),
                   [](const auto& a, const auto& b) { return a.latency_ns > b.latency_ns; });
  return out;
}

}  // namespace jemtrace::ledger
