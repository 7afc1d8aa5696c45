#pragma once

#include <cstdint>
#include <map>
#include <optional>

#include "jemtrace/abi.h"

namespace jemtrace::ledger {

/// Which state each address range of one process was last seen to enter. Memory that jemalloc takes into use
/// again raises no event, so a range may be older than its entry says: an estimate for where no probe tells
/// the source.
class Ranges {
 public:
  /// [addr, addr + len) is in `state` now; what was there before is cut.
  void enter(uint64_t addr, uint64_t len, jt_state state);
  /// The mapping is gone.
  void forget(uint64_t addr, uint64_t len);
  /// The state of the whole range; nullopt when parts differ or are unknown.
  [[nodiscard]] std::optional<jt_state> state_of(uint64_t addr, uint64_t len) const;
  /// Bytes in ranges of `state`.
  [[nodiscard]] uint64_t bytes_in(jt_state state) const;

 private:
  struct Range {
    uint64_t end = 0;
    jt_state state = JT_STATE_UNKNOWN;
  };
  void split(uint64_t at);
  std::map<uint64_t, Range> by_start_;
};

}  // namespace jemtrace::ledger
