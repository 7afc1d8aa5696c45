#include "advise/activity.hpp"

#include <algorithm>
#include <cmath>
#include <tuple>

#include "ledger/smoothstep.hpp"

namespace jemtrace::advise {
namespace {

bool complete(const ledger::ArenaReading& arena) {
  return arena.active_pages && arena.dirty.pages && arena.muzzy.pages && arena.dirty_decay.time_ms &&
         arena.muzzy_decay.time_ms;
}

bool same_pages(const Point& a, const Point& b) {
  return a.active == b.active && a.dirty == b.dirty && a.muzzy == b.muzzy && a.gone == b.gone &&
         a.taken == b.taken;
}

/// A process may count what it likes: more than there can be is not known.
std::optional<uint64_t> since(const std::optional<uint64_t>& now, const std::optional<uint64_t>& start) {
  constexpr uint64_t most_pages = uint64_t{1} << 40;
  return now && start && *now >= *start && *now - *start < most_pages ? std::optional(*now - *start)
                                                                      : std::nullopt;
}

Point point_of(const ledger::ArenaReading& arena, const ledger::ArenaReading& first, uint32_t at) {
  // With a muzzy decay time of 0 the dirty pages leave directly, else all of them become muzzy before.
  const bool muzzy = arena.muzzy_decay.time_ms != 0;
  return {.at = at,
          .active = *arena.active_pages,
          .dirty = *arena.dirty.pages,
          .muzzy = *arena.muzzy.pages,
          .gone = muzzy ? since(arena.muzzy_decay.purged_pages, first.muzzy_decay.purged_pages)
                        : since(arena.dirty_decay.purged_pages, first.dirty_decay.purged_pages),
          .taken = arena.taken && first.taken ? since(arena.taken->pages, first.taken->pages) : std::nullopt};
}

/// The decay that keeps epochs: the dirty one, else the muzzy one.
const ledger::DecayReading& clock_of(const ledger::ArenaReading& arena) {
  return arena.dirty_decay.time_ms.value_or(0) > 0 ? arena.dirty_decay : arena.muzzy_decay;
}

}  // namespace

std::vector<Asked> asked_between(const ledger::Taken& first, const ledger::Taken& now) {
  constexpr uint64_t most_pages = uint64_t{1} << 28;
  std::map<uint64_t, std::pair<uint64_t, uint64_t>> sizes;  // by pages
  for (const auto& one : first.sizes) {
    sizes[one.pages].first += one.extents;
  }
  for (const auto& one : now.sizes) {
    sizes[one.pages].second += one.extents;
  }
  std::vector<Asked> asked;
  for (const auto& [pages, extents] : sizes) {
    if (extents.second > extents.first && pages > 0 && pages < most_pages) {
      asked.push_back({pages, extents.second - extents.first});
    }
  }
  return asked;
}

std::optional<double> busy_rate(const Chances& chances) {
  constexpr uint64_t fewest = 10;
  if (chances.tries < fewest || chances.tries_ns == 0) {
    return std::nullopt;
  }
  // None seen, or none missed: less, or more, than can be told.
  const double tries = static_cast<double>(chances.tries);
  const double missed = std::max(tries - static_cast<double>(chances.came), 0.5);
  return -std::log(std::min(missed / tries, 1.0)) * tries * 1e9 / static_cast<double>(chances.tries_ns);
}

std::optional<double> idle_rate(const Chances& chances) {
  if (chances.waited_ns == 0) {
    return std::nullopt;
  }
  return static_cast<double>(chances.taken) * 1e9 / static_cast<double>(chances.waited_ns);
}

uint64_t taken_between(const Point& before, const Point& now) {
  const uint64_t grown = now.active > before.active ? now.active - before.active : 0;
  return std::max(grown,
                  before.taken && now.taken && *now.taken > *before.taken ? *now.taken - *before.taken : 0);
}

uint64_t freed_between(const Point& before, const Point& now) {
  return before.active + taken_between(before, now) - now.active;
}

bool purged_all(const ArenaActivity& arena, const Point& before, const Point& now) {
  constexpr uint64_t much = 2048;
  return arena.dirty_ms != 0 && now.dirty + now.muzzy == 0 &&
         before.dirty + before.muzzy + freed_between(before, now) >= much;
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

double Activity::mean_resident_pages() const {
  const std::vector<Point> sums = totals();
  double sum = 0;
  for (size_t i = 1; i < sums.size(); ++i) {
    const auto pages = [&](const Point& p) { return static_cast<double>(p.active + p.dirty + p.muzzy); };
    sum += (pages(sums[i - 1]) + pages(sums[i])) / 2 * static_cast<double>(times_ns[i] - times_ns[i - 1]);
  }
  return span_ns() == 0 ? 0 : sum / static_cast<double>(span_ns());
}

void Recorder::begin(const Key& key, const ledger::ArenaReading& reading, uint64_t at_ns) {
  ArenaActivity arena{.index = reading.index};
  arena.points.push_back(point_of(reading, reading, static_cast<uint32_t>(activity_.times_ns.size() - 1)));
  arena.dirty_start = reading.dirty_decay;
  arena.muzzy_start = reading.muzzy_decay;
  seen_[key] = {activity_.arenas.size(), arena.points.back(), reading, reading, at_ns};
  activity_.arenas.push_back(std::move(arena));
}

void Recorder::go_on(Seen& seen, const ledger::ArenaReading& reading, uint64_t at_ns) {
  ArenaActivity& arena = activity_.arenas[seen.arena];
  const Point point = point_of(reading, seen.first, static_cast<uint32_t>(activity_.times_ns.size() - 1));
  const bool busy = !same_pages(point, seen.last);
  if (busy) {
    arena.points.push_back(point);
    arena.busy_ns += at_ns - seen.at_ns;
  }
  const ledger::DecayReading& before = clock_of(seen.now);
  const ledger::DecayReading& now = clock_of(reading);
  if (before.epoch_ns && before.deadline_ns && now.epoch_ns && now.deadline_ns &&
      before.time_ms == now.time_ms) {
    Chances& chances = busy ? arena.busy : arena.idle;
    const uint64_t waits_from = std::max(seen.at_ns, *before.deadline_ns);
    const uint64_t waited = at_ns > waits_from ? at_ns - waits_from : 0;
    const bool advanced = *now.epoch_ns != *before.epoch_ns;
    // An epoch that began its wait within this time may have been waiting for long, or not: that is not
    // known.
    if (advanced || *before.deadline_ns <= seen.at_ns) {
      arena.chances.resize(activity_.times_ns.size(), Chance::unknown);
      arena.chances.back() = advanced ? Chance::taken : Chance::none;
    }
    // Where one waited all the time until its end or the next reading, that is a try of known length.
    if (*before.deadline_ns <= seen.at_ns) {
      chances.tries += 1;
      chances.came += advanced ? 1 : 0;
      chances.tries_ns += at_ns - seen.at_ns;
    }
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
    if (first.taken && now.taken) {
      arena.asked = asked_between(*first.taken, *now.taken);
    }
    arena.muzzy_extents = since(now.muzzy_decay.nmadvise, first.muzzy_decay.nmadvise);
  }
  seen_.clear();
  return std::move(activity_);
}

}  // namespace jemtrace::advise
