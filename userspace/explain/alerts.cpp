#include "explain/alerts.hpp"

#include <algorithm>

namespace jemtrace::explain {

void Alerts::update(const Evaluation& evaluation) {
  for (const ledger::Finding& finding : evaluation.findings) {
    states_.try_emplace(finding.id);
  }
  for (auto& [id, state] : states_) {
    const auto is_it = [&id = id](const auto& one) { return one.id == id; };
    if (std::any_of(evaluation.unmeasured.begin(), evaluation.unmeasured.end(), is_it)) {
      continue;
    }
    const bool found = std::any_of(evaluation.findings.begin(), evaluation.findings.end(), is_it);
    state.streak = found == state.on ? 0 : state.streak + 1;
    if (state.streak >= (found ? on_after_ : off_after_)) {
      state = {.on = found, .streak = 0};
    }
  }
}

bool Alerts::on(const std::string& id) const {
  const auto found = states_.find(id);
  return found != states_.end() && found->second.on;
}

std::map<std::string, bool> Alerts::states() const {
  std::map<std::string, bool> out;
  for (const auto& [id, state] : states_) {
    out[id] = state.on;
  }
  return out;
}

}  // namespace jemtrace::explain
