#include "advise/activity.hpp"

#include <algorithm>

namespace jemtrace::advise {
namespace {

bool complete(const ledger::ArenaReading& arena) {
  return arena.active_pages && arena.dirty.pages && arena.muzzy.pages && arena.dirty_decay.time_ms &&
         arena.muzzy_decay.time_ms;
}

Point point_of(const ledger::ArenaReading& arena, uint32_t at) {
  return {.at = at,
          .active = *arena.active_pages,
          .dirty = *arena.dirty.pages,
          .muzzy = *arena.muzzy.pages,
          .retained = arena.retained.pages.value_or(0)};
}

bool same_pages(const Point& a, const Point& b) {
  return a.active == b.active && a.dirty == b.dirty && a.muzzy == b.muzzy && a.retained == b.retained;
}

std::optional<uint64_t> since(const std::optional<uint64_t>& now, const std::optional<uint64_t>& start) {
  return now && start && *now >= *start ? std::optional(*now - *start) : std::nullopt;
}

/// The decay that keeps epochs: the dirty one, else the muzzy one.
const ledger::DecayReading& clock_of(const ledger::ArenaReading& arena) {
  return arena.dirty_decay.time_ms.value_or(0) > 0 ? arena.dirty_decay : arena.muzzy_decay;
}

}  // namespace

std::optional<double> Chances::per_second() const {
  if (taken == 0 && waited_ns == 0) {
    return std::nullopt;
  }
  // One chance may have been missed by a hair at the end: never infinite.
  constexpr uint64_t least_ns = 10'000;
  return static_cast<double>(taken) * 1e9 / static_cast<double>(std::max(waited_ns, least_ns));
}

std::vector<Point> Activity::totals() const {
  std::vector<Point> sums(times_ns.size());
  for (uint32_t at = 0; at < sums.size(); ++at) {
    sums[at].at = at;
  }
  for (const ArenaActivity& arena : arenas) {
    size_t next = 0;
    Point now;
    for (Point& sum : sums) {
      while (next < arena.points.size() && arena.points[next].at <= sum.at) {
        now = arena.points[next++];
      }
      sum.active += now.active;
      sum.dirty += now.dirty;
      sum.muzzy += now.muzzy;
      sum.retained += now.retained;
    }
  }
  return sums;
}

std::optional<uint64_t> Activity::purged_pages() const {
  uint64_t sum = 0;
  for (const ArenaActivity& arena : arenas) {
    if (!arena.dirty_purged || !arena.muzzy_purged) {
      return std::nullopt;
    }
    sum += *arena.dirty_purged + *arena.muzzy_purged;
  }
  return sum;
}

void Recorder::begin(const Key& key, const ledger::ArenaReading& reading, uint64_t at_ns) {
  ArenaActivity arena{.index = reading.index};
  arena.points.push_back(point_of(reading, static_cast<uint32_t>(activity_.times_ns.size() - 1)));
  arena.dirty_start = reading.dirty_decay;
  arena.muzzy_start = reading.muzzy_decay;
  seen_[key] = {activity_.arenas.size(), arena.points.back(), reading, reading, at_ns};
  activity_.arenas.push_back(std::move(arena));
}

void Recorder::go_on(Seen& seen, const ledger::ArenaReading& reading, uint64_t at_ns) {
  ArenaActivity& arena = activity_.arenas[seen.arena];
  const Point point = point_of(reading, static_cast<uint32_t>(activity_.times_ns.size() - 1));
  const bool busy = !same_pages(point, seen.last);
  if (busy) {
    arena.points.push_back(point);
    arena.busy_ns += at_ns - seen.at_ns;
  }
  const ledger::DecayReading& before = clock_of(seen.now);
  const ledger::DecayReading& now = clock_of(reading);
  if (before.epoch_ns && before.deadline_ns && now.epoch_ns && before.time_ms == now.time_ms) {
    Chances& chances = busy ? arena.busy : arena.idle;
    const uint64_t waits_from = std::max(seen.at_ns, *before.deadline_ns);
    const uint64_t waited = at_ns > waits_from ? at_ns - waits_from : 0;
    const bool advanced = *now.epoch_ns != *before.epoch_ns;
    chances.taken += advanced ? 1 : 0;
    chances.waited_ns += advanced ? waited / 2 : waited;  // somewhere in between
  }
  seen.last = point;
  seen.now = reading;
  seen.at_ns = at_ns;
}

void Recorder::add(const ledger::Reading& reading) {
  if (!std::all_of(reading.arenas.begin(), reading.arenas.end(), complete)) {
    activity_.unread += 1;
    return;
  }
  if (!activity_.times_ns.empty() && reading.at_ns <= activity_.times_ns.back()) {
    return;
  }
  activity_.times_ns.push_back(reading.at_ns);
  std::map<uint32_t, uint32_t> of_same_index;
  for (const ledger::ArenaReading& arena : reading.arenas) {
    const Key key{arena.index, of_same_index[arena.index]++};
    if (const auto found = seen_.find(key); found != seen_.end()) {
      go_on(found->second, arena, reading.at_ns);
    } else {
      begin(key, arena, reading.at_ns);
    }
  }
}

Activity Recorder::take() {
  for (const auto& [key, seen] : seen_) {
    ArenaActivity& arena = activity_.arenas[seen.arena];
    const auto& [first, now] = std::tie(seen.first, seen.now);
    arena.dirty_ms = now.dirty_decay.time_ms.value_or(0);
    arena.muzzy_ms = now.muzzy_decay.time_ms.value_or(0);
    arena.dirty_purged = since(now.dirty_decay.purged_pages, first.dirty_decay.purged_pages);
    arena.muzzy_purged = since(now.muzzy_decay.purged_pages, first.muzzy_decay.purged_pages);
    arena.dirty_extents = since(now.dirty_decay.nmadvise, first.dirty_decay.nmadvise);
    arena.muzzy_extents = since(now.muzzy_decay.nmadvise, first.muzzy_decay.nmadvise);
  }
  seen_.clear();
  return std::move(activity_);
}

}  // namespace jemtrace::advise
