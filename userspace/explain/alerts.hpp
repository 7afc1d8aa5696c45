#pragma once

#include <map>
#include <string>
#include <vector>

#include "explain/explain.hpp"

namespace jemtrace::explain {

/// Which findings of one process are on, with hysteresis: numbers around a threshold must not make an alert
/// flap. One comes on when it was found `on_after` times in a row, and goes off when it was missing
/// `off_after` times in a row. Where its rule could not be measured, nothing changes.
class Alerts {
 public:
  explicit Alerts(unsigned on_after = 2, unsigned off_after = 5)
      : on_after_(on_after), off_after_(off_after) {}

  void update(const Evaluation& evaluation);
  [[nodiscard]] bool on(const std::string& id) const;
  /// Every id that was ever found, with its state: an alert that is off is exported as 0, and one that never
  /// was is not exported.
  [[nodiscard]] std::map<std::string, bool> states() const;

 private:
  struct State {
    bool on = false;
    unsigned streak = 0;  // evaluations in a row that say the opposite of `on`
  };
  unsigned on_after_, off_after_;
  std::map<std::string, State> states_;
};

}  // namespace jemtrace::explain
