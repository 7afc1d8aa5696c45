#include "ledger/ranges.hpp"

namespace jemtrace::ledger {
namespace {

/// Addresses from targets may wrap around: the range then ends where the addresses do.
uint64_t end_of(uint64_t addr, uint64_t len) {
  return addr + len < addr ? ~uint64_t{0} : addr + len;
}

}  // namespace

void Ranges::split(uint64_t at) {
  auto it = by_start_.upper_bound(at);
  if (it == by_start_.begin()) {
    return;
  }
  --it;
  if (it->first < at && at < it->second.end) {
    by_start_[at] = it->second;
    it->second.end = at;
  }
}

void Ranges::forget(uint64_t addr, uint64_t len) {
  const uint64_t end = end_of(addr, len);
  split(addr);
  split(end);
  by_start_.erase(by_start_.lower_bound(addr), by_start_.lower_bound(end));
}

void Ranges::enter(uint64_t addr, uint64_t len, jt_state state) {
  if (len == 0) {
    return;
  }
  forget(addr, len);
  uint64_t start = addr;
  uint64_t end = end_of(addr, len);
  // Neighbours in the same state become one range: jemalloc purges them in pieces.
  auto next = by_start_.find(end);
  if (next != by_start_.end() && next->second.state == state) {
    end = next->second.end;
    by_start_.erase(next);
  }
  auto before = by_start_.lower_bound(start);
  if (before != by_start_.begin()) {
    --before;
    if (before->second.end == start && before->second.state == state) {
      start = before->first;
    }
  }
  by_start_[start] = {end, state};
}

std::optional<jt_state> Ranges::state_of(uint64_t addr, uint64_t len) const {
  const uint64_t end = end_of(addr, len);
  auto it = by_start_.upper_bound(addr);
  if (it == by_start_.begin()) {
    return std::nullopt;
  }
  --it;
  // Neighbours of one state are merged, so that a range of one state lies in one entry.
  return it->second.end >= end && end > addr ? std::optional(it->second.state) : std::nullopt;
}

uint64_t Ranges::bytes_in(jt_state state) const {
  uint64_t sum = 0;
  for (const auto& [start, range] : by_start_) {
    sum += range.state == state ? range.end - start : 0;
  }
  return sum;
}

}  // namespace jemtrace::ledger
