#include <algorithm>

#include "advise/activity.hpp"

namespace jemtrace::advise {
namespace {

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

}  // namespace

std::optional<double> returned_pages(const Activity& activity) {
  double returned = 0;
  for (const ArenaActivity& arena : activity.arenas) {
    double gone = 0;
    double came = 0;  // below 0: what a reading had too much of before
    for (size_t i = 1; i < arena.points.size(); ++i) {
      const auto more = came_between(arena.points[i - 1], arena.points[i]);
      if (!more) {
        return std::nullopt;
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
  return returned;
}

double touched_share(double returned_pages, uint64_t refaulted_pages) {
  constexpr double enough = 4096;
  return returned_pages < enough ? 1 : std::min(1.0, static_cast<double>(refaulted_pages) / returned_pages);
}

}  // namespace jemtrace::advise
