#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "jemtrace/abi.h"
#include "ledger/model.hpp"

namespace jemtrace::collect {

/// What one process asked its own jemalloc, seen from outside: the latest answer to each question. Names and
/// values are the process's, and untrusted. Not safe for use by several threads.
class Passive {
 public:
  struct Value {
    uint64_t value = 0;
    uint64_t at_ns = 0;                  // CLOCK_MONOTONIC: when it was asked
    std::optional<uint64_t> counted_ns;  // when the process had it counted ("epoch"); nullopt: not seen
  };

  void add(const jt_mallctl_event& event);
  /// "stats.active". nullptr: not asked yet.
  [[nodiscard]] const Value* find(const std::string& name) const;

  /// method "passive", of what is known; `age_ms` is of the oldest of them, unknown when it was not seen when
  /// they were counted. method "": nothing is known.
  [[nodiscard]] ledger::States states(uint64_t now_ns) const;

  /// All that is known; `skipped` is not.
  [[nodiscard]] ledger::Asked asked(uint64_t now_ns) const;

  /// Whether `event` is one to compare: stats.active, counted less than 0.1 s before.
  [[nodiscard]] bool is_fresh_active(const jt_mallctl_event& event) const;
  /// What structures say at the same moment. Allows for what moves in between: 5 % and 2 MiB.
  void compare(uint64_t passive_bytes, uint64_t structures_bytes);

  /// One sentence each: what did not agree, and what was asked by numbers whose names were not seen.
  [[nodiscard]] std::vector<std::string> caveats() const;

 private:
  [[nodiscard]] std::optional<std::string> name_of(const jt_mallctl_event& event) const;

  std::map<std::vector<uint64_t>, std::string> names_;  // by mib
  std::map<std::string, Value> values_;
  std::optional<uint64_t> counted_ns_;
  uint64_t unnamed_ = 0, compared_ = 0, different_ = 0;
  std::string difference_;  // the last one
};

}  // namespace jemtrace::collect
