#include "advise/decay.hpp"

#include <algorithm>

namespace jemtrace::advise {
namespace {

constexpr std::array<uint64_t, Decay::steps> curve = [] {
  std::array<uint64_t, Decay::steps> steps{};
  for (size_t i = 0; i < steps.size(); ++i) {
    steps[i] = ledger::smoothstep(i);
  }
  return steps;
}();

}  // namespace

uint64_t Random::next() {
  state_ += 0x9e3779b97f4a7c15;
  uint64_t z = state_;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
  z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
  return z ^ (z >> 31);
}

Decay::Decay(int64_t time_ms, uint64_t now_ns, uint64_t seed)
    : time_ms_(time_ms), epoch_ns_(now_ns), random_(seed) {
  if (gradual()) {
    interval_ns_ = static_cast<uint64_t>(time_ms) * 1'000'000 / steps;
    set_deadline();
  }
}

bool Decay::resume(const ledger::DecayReading& read) {
  if (!gradual() || read.time_ms != time_ms_ || !read.epoch_ns || !read.deadline_ns ||
      !read.nunpurged_pages || read.backlog_pages.size() != steps) {
    return false;
  }
  // A process that was stopped, or changes its settings while it is read, may say anything.
  if (*read.deadline_ns < *read.epoch_ns || *read.deadline_ns - *read.epoch_ns > 2 * interval_ns_) {
    return false;
  }
  epoch_ns_ = *read.epoch_ns;
  deadline_ns_ = *read.deadline_ns;
  nunpurged_ = *read.nunpurged_pages;
  std::copy(read.backlog_pages.begin(), read.backlog_pages.end(), backlog_.begin());
  empty_ = std::all_of(backlog_.begin(), backlog_.end(), [](uint64_t pages) { return pages == 0; });
  limit_ = backlog_limit();
  return true;
}

// The jitter keeps the arenas of a process, and the processes of a host, from purging all at the same moment.
void Decay::set_deadline() {
  deadline_ns_ = epoch_ns_ + interval_ns_ + random_.below(interval_ns_);
}

bool Decay::maybe_advance(uint64_t now_ns, uint64_t pages) {
  if (!gradual() || now_ns < deadline_ns_) {
    return false;
  }
  const uint64_t epochs = (now_ns - epoch_ns_) / interval_ns_;
  epoch_ns_ += epochs * interval_ns_;
  set_deadline();
  update_backlog(epochs, pages);
  limit_ = backlog_limit();
  nunpurged_ = std::max(limit_, pages);
  return true;
}

void Decay::update_backlog(uint64_t epochs, uint64_t pages) {
  if (!empty_) {
    const size_t passed = std::min<uint64_t>(epochs, steps);
    std::copy(backlog_.begin() + static_cast<std::ptrdiff_t>(passed), backlog_.end(), backlog_.begin());
    std::fill(backlog_.end() - static_cast<std::ptrdiff_t>(passed), backlog_.end(), 0);
  }
  backlog_.back() = pages > nunpurged_ ? pages - nunpurged_ : 0;
  if (backlog_.back() > 0) {
    empty_ = false;
  } else if (!empty_) {
    empty_ = std::all_of(backlog_.begin(), backlog_.end(), [](uint64_t p) { return p == 0; });
  }
}

uint64_t Decay::backlog_limit() const {
  if (empty_) {
    return 0;
  }
  uint64_t sum = 0;
  for (size_t i = 0; i < steps; ++i) {
    sum += backlog_[i] * curve[i];
  }
  return sum >> ledger::decay_fixed_point;
}

uint64_t Decay::purgeable_after(size_t epochs) const {
  uint64_t sum = 0;
  for (size_t i = 0; i < epochs; ++i) {
    sum += backlog_[i] * curve[i];
  }
  for (size_t i = epochs; i < steps; ++i) {
    sum += backlog_[i] * (curve[i] - curve[i - epochs]);
  }
  return sum >> ledger::decay_fixed_point;
}

uint64_t Decay::ns_until_purge(uint64_t pages, uint64_t threshold) const {
  if (!gradual() || (pages == 0 && empty_)) {
    return never;
  }
  if (pages <= threshold) {
    return interval_ns_ * steps;
  }
  size_t low = 2;  // so that the next deadline is passed
  size_t high = steps;
  uint64_t at_low = purgeable_after(low);
  if (at_low > threshold) {
    return interval_ns_ * low;
  }
  uint64_t at_high = purgeable_after(high);
  if (at_high < threshold) {
    return interval_ns_ * high;
  }
  while (at_low + threshold < at_high && low + 2 < high) {
    const size_t middle = (low + high) / 2;
    const uint64_t at_middle = purgeable_after(middle);
    if (at_middle > threshold) {
      high = middle;
      at_high = at_middle;
    } else {
      low = middle;
      at_low = at_middle;
    }
  }
  return interval_ns_ * (low + high) / 2;
}

uint64_t Decay::purged_within(uint64_t ns, uint64_t pages) const {
  if (!gradual()) {
    return 0;
  }
  const uint64_t epochs = ns / interval_ns_;
  if (epochs >= steps) {
    return pages;
  }
  return pages * (curve[steps - 1] - curve[steps - 1 - epochs]) >> ledger::decay_fixed_point;
}

}  // namespace jemtrace::advise
