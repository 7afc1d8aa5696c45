#include <algorithm>
#include <cmath>
#include <numeric>

#include "advise/activity.hpp"

namespace jemtrace::advise {
namespace {

/// Between two readings.
struct Flow {
  double held = 0;                // dirty and muzzy pages, on average
  double taken = 0, missing = 0;  // pages asked for, and that came from elsewhere
};

double difference(uint64_t now, uint64_t before) {
  return static_cast<double>(now) - static_cast<double>(before);
}

/// Pages that came from elsewhere between two points, that is from retained ones or new: what is active,
/// dirty or muzzy now and was not before, and what was purged meanwhile. nullopt: not known.
std::optional<double> came_between(const Point& before, const Point& now) {
  if (!before.gone || !now.gone) {
    return std::nullopt;
  }
  return difference(now.active + now.dirty + now.muzzy, before.active + before.dirty + before.muzzy) +
         difference(*now.gone, *before.gone);
}

std::vector<Flow> flows_of(const ArenaActivity& arena) {
  std::vector<Flow> flows;
  for (size_t i = 1; i < arena.points.size(); ++i) {
    const Point& before = arena.points[i - 1];
    const Point& now = arena.points[i];
    const auto came = came_between(before, now);
    if (!came || !before.taken || !now.taken) {
      continue;
    }
    const uint64_t held_before = before.dirty + before.muzzy;
    const uint64_t held_now = now.dirty + now.muzzy;
    const double grown = difference(now.active, before.active);
    // Where much is taken the cache runs out in between: that says nothing of how well it serves.
    if (grown * 2 <= static_cast<double>(held_before)) {
      flows.push_back({(static_cast<double>(held_before) + static_cast<double>(held_now)) / 2,
                       difference(*now.taken, *before.taken), *came});
    }
  }
  return flows;
}

}  // namespace

std::optional<double> miss_pages(const ArenaActivity& arena) {
  constexpr double least = 1, most = 1 << 24;
  constexpr int halvings = 60;
  const std::vector<Flow> flows = flows_of(arena);
  if (flows.empty()) {
    return std::nullopt;
  }
  // Readings are not of one moment: what is missing in one is too much in the next, and cancels out.
  const double missing = std::accumulate(flows.begin(), flows.end(), 0.0,
                                         [](double sum, const Flow& flow) { return sum + flow.missing; });
  double low = least;
  double high = most;
  for (int i = 0; i < halvings; ++i) {
    const double pages = std::sqrt(low * high);
    double said = 0;
    for (const Flow& flow : flows) {
      said += flow.taken * std::exp(-flow.held / pages);
    }
    (said < missing ? low : high) = pages;
  }
  return low;
}

double touched_share(const Activity& activity, uint64_t refaulted_pages) {
  constexpr double enough = 4096;
  double returned = 0;
  for (const ArenaActivity& arena : activity.arenas) {
    double gone = 0;
    double came = 0;  // below 0: what a reading had too much of before
    for (size_t i = 1; i < arena.points.size(); ++i) {
      const auto more = came_between(arena.points[i - 1], arena.points[i]);
      if (!more) {
        return 1;
      }
      gone += difference(*arena.points[i].gone, *arena.points[i - 1].gone);
      came += *more;
      if (came > 0) {
        const double back = std::min(came, gone);
        gone -= back;
        returned += back;
        came = 0;
      }
    }
  }
  return returned < enough ? 1 : std::min(1.0, static_cast<double>(refaulted_pages) / returned);
}

}  // namespace jemtrace::advise
