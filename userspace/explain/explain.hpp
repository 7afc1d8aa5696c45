#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "explain/inputs.hpp"
#include "explain/rules.hpp"
#include "ledger/finding.hpp"

/// From numbers to what they mean and what to do. Pure: knows nothing of BPF, /proc and live processes.
namespace jemtrace::explain {

/// A diagnosis that could neither be made nor be ruled out.
struct Unmeasured {
  std::string id, because;
};

struct Evaluation {
  std::vector<ledger::Finding> findings;  // most severe first; never contradicting each other
  std::vector<Unmeasured> unmeasured;
};

/// All rules on one process. HEALTHY stands alone, and only where the numbers that it rests on are known.
Evaluation evaluate(const Inputs& in);

/// The rule behind an id; nullptr: none.
const Rule* find_rule(const std::string& id);
/// Every id that a finding may have, HEALTHY last.
std::vector<std::string> all_ids();

/// What a trace knows anyway, without a costly read: `first` and `last` moment with RSS, LazyFree and states,
/// and what was purged in between. Rules that need more end up in Evaluation::unmeasured.
struct Cheap {
  const ledger::TargetInfo& target;
  uint64_t window_ns = 0;
  const ledger::Totals& delta;
  const ledger::Sample& first_sample;
  const ledger::Sample& last_sample;
  const ledger::States& first_states;
  const ledger::States& last_states;
  ledger::Pressed pressed = {};           // pages taken lazily within the window; a host's or a cgroup's
  Maybe<ledger::Refaults> refaults = {};  // of the window
};
Inputs inputs_of(const Cheap& cheap);

/// Who a target is and how it is set, as the rules want it.
void describe(const ledger::TargetInfo& target, Inputs& in);

}  // namespace jemtrace::explain
