#include "ledger/model.hpp"

#include <cstddef>

namespace jemtrace::ledger {
namespace {

// Values come from the kernel or from recordings of newer versions: what is not in the table has no name
// here.
template <size_t N>
const char* lookup(const std::array<const char*, N>& names, unsigned value) {
  return value < N ? names[value] : "unknown";
}

constexpr std::array<const char*, JT_TRANSITIONS> transitions = {
    "dirty_muzzy",    "dirty_retained",    "muzzy_retained",   "dirty_returned",
    "muzzy_returned", "retained_returned", "unknown_retained", "unknown_returned",
};
constexpr std::array<const char*, JT_STATES> states = {"unknown", "dirty", "muzzy", "retained"};
constexpr std::array<const char*, JT_PAYERS> payers = {"app", "background"};
constexpr std::array<const char*, JT_CAUSES> causes = {
    "unknown", "tick", "background", "ctl_decay", "ctl_purge", "zero_decay", "oversize", "thread_exit",
};
constexpr std::array<const char*, JT_SYSCALLS> syscalls = {
    "none", "madvise", "process_madvise", "munmap", "mmap", "mremap",
};
constexpr std::array<const char*, JT_PURPOSES> purposes = {
    "pass", "sweep",   "oversize",     "destroy",      "zero_fill", "boot_probe",   "metadata", "hpa",
    "trim", "abandon", "other_advice", "thread_stack", "foreign",   "unclassified", "unproven",
};
constexpr std::array<const char*, JT_LOSSES> losses = {
    "ring_events",  "lifecycle_events", "map_full",   "no_storage",  "unmatched_exit", "unread_stack",
    "unread_iovec", "unread_cache",     "unread_rss", "target_full", "missed_runs",
};

}  // namespace

States states_of(const Reading& reading, uint64_t page_bytes) {
  const Reading::Total total = reading.total(page_bytes);
  return {.allocated_bytes = total.allocated,
          .active_bytes = total.active,
          .dirty_bytes = total.dirty,
          .muzzy_bytes = total.muzzy,
          .retained_bytes = total.retained,
          .method = name(reading.method),
          .age_ms = 0};
}

Histogram TransitionTotals::total() const {
  Histogram sum;
  for (const Histogram& part : by_payer) {
    sum.merge(part);
  }
  return sum;
}

const char* name(jt_transition transition) {
  return lookup(transitions, transition);
}
const char* name(jt_state state) {
  return lookup(states, state);
}
const char* name(jt_payer payer) {
  return lookup(payers, payer);
}
const char* name(jt_cause cause) {
  return lookup(causes, cause);
}
const char* name(jt_syscall syscall) {
  return lookup(syscalls, syscall);
}
const char* name(jt_purpose purpose) {
  return lookup(purposes, purpose);
}
const char* name(jt_loss loss) {
  return lookup(losses, loss);
}

}  // namespace jemtrace::ledger
