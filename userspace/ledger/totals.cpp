#include <algorithm>
#include <iterator>
#include <numeric>

#include "ledger/model.hpp"

namespace jemtrace::ledger {
namespace {

jt_refaults difference(const jt_refaults& now, const jt_refaults& earlier) {
  jt_refaults out = now;
  out.unfollowed_pages -= earlier.unfollowed_pages;
  for (size_t state = 0; state < JT_STATES; ++state) {
    out.followed_pages[state] -= earlier.followed_pages[state];
    for (size_t age = 0; age < JT_REFAULT_AGES; ++age) {
      out.touched_pages[state][age] -= earlier.touched_pages[state][age];
    }
  }
  for (size_t age = 0; age < JT_REFAULT_AGES; ++age) {
    out.maybe_huge[age] -= earlier.maybe_huge[age];
  }
  out.evicted_chunks -= earlier.evicted_chunks;
  out.evicted_pages -= earlier.evicted_pages;
  return out;
}

/// Counters only grow: plain differences, field by field.
jt_counters difference(const jt_counters& now, const jt_counters& earlier) {
  jt_counters out = now;
  for (size_t state = 0; state < JT_STATES; ++state) {
    out.decay[state].npurge -= earlier.decay[state].npurge;
    out.decay[state].nmadvise -= earlier.decay[state].nmadvise;
    out.decay[state].purged -= earlier.decay[state].purged;
    for (size_t cause = 0; cause < JT_CAUSES; ++cause) {
      out.sweeps[state][cause] -= earlier.sweeps[state][cause];
    }
  }
  for (size_t purpose = 0; purpose < JT_PURPOSES; ++purpose) {
    out.by_purpose[purpose].calls -= earlier.by_purpose[purpose].calls;
    out.by_purpose[purpose].bytes -= earlier.by_purpose[purpose].bytes;
    out.by_purpose[purpose].total_ns -= earlier.by_purpose[purpose].total_ns;
    out.by_purpose[purpose].failed -= earlier.by_purpose[purpose].failed;
  }
  out.oversize_extents -= earlier.oversize_extents;
  out.rss_delta_bytes -= earlier.rss_delta_bytes;
  out.failed_errno_inval -= earlier.failed_errno_inval;
  out.failed_errno_other -= earlier.failed_errno_other;
  out.bpf_samples -= earlier.bpf_samples;
  out.bpf_sampled_ns -= earlier.bpf_sampled_ns;
  out.probe_hits -= earlier.probe_hits;
  out.untimed_calls -= earlier.untimed_calls;
  out.refaults = difference(now.refaults, earlier.refaults);
  return out;
}

}  // namespace

uint64_t calls(const jt_counters& counters) {
  return std::accumulate(std::begin(counters.by_purpose), std::end(counters.by_purpose), uint64_t{0},
                         [](uint64_t sum, const jt_calls& some) { return sum + some.calls; });
}

Totals Totals::since(const Totals& earlier) const {
  Totals out;
  out.counters = difference(counters, earlier.counters);
  for (size_t transition = 0; transition < JT_TRANSITIONS; ++transition) {
    for (size_t payer = 0; payer < JT_PAYERS; ++payer) {
      out.transitions[transition].by_payer[payer] =
          transitions[transition].by_payer[payer].since(earlier.transitions[transition].by_payer[payer]);
    }
  }
  return out;
}

void Totals::forget_sources() {
  const auto move = [&](jt_transition from, jt_transition to) {
    for (size_t payer = 0; payer < JT_PAYERS; ++payer) {
      transitions[to].by_payer[payer].merge(transitions[from].by_payer[payer]);
      transitions[from].by_payer[payer] = Histogram();
    }
  };
  move(JT_DIRTY_RETAINED, JT_UNKNOWN_RETAINED);
  move(JT_MUZZY_RETAINED, JT_UNKNOWN_RETAINED);
  move(JT_DIRTY_RETURNED, JT_UNKNOWN_RETURNED);
  move(JT_MUZZY_RETURNED, JT_UNKNOWN_RETURNED);

  const Histogram lazy = transitions[JT_DIRTY_MUZZY].total();
  const jt_decay_counters certain{
      .npurge = 0, .nmadvise = lazy.extents(), .purged = lazy.bytes() >> JT_PAGE_SHIFT};
  jt_decay_counters& unknown = counters.decay[JT_STATE_UNKNOWN];
  for (const jt_state state : {JT_STATE_DIRTY, JT_STATE_MUZZY}) {
    unknown.npurge += counters.decay[state].npurge;
    unknown.nmadvise += counters.decay[state].nmadvise;
    unknown.purged += counters.decay[state].purged;
    counters.decay[state] = {};
    for (size_t cause = 0; cause < JT_CAUSES; ++cause) {
      counters.sweeps[JT_STATE_UNKNOWN][cause] += counters.sweeps[state][cause];
      counters.sweeps[state][cause] = 0;
    }
  }
  unknown.nmadvise -= std::min(certain.nmadvise, unknown.nmadvise);
  unknown.purged -= std::min(certain.purged, unknown.purged);
  counters.decay[JT_STATE_DIRTY] = certain;
}

}  // namespace jemtrace::ledger
