#include <gtest/gtest.h>

#include "advise/simulate.hpp"

namespace jemtrace::advise {
namespace {

/// 50 000 pages that are freed, and purged by the program; then half a second of little work.
Activity flushed(uint64_t dirty_after) {
  ArenaActivity arena{.dirty_ms = 10'000};
  arena.points.push_back({.at = 0, .active = 50'000, .gone = 0, .taken = 0});
  arena.points.push_back(
      {.at = 1, .active = 1'000, .dirty = dirty_after, .gone = 49'000 - dirty_after, .taken = 0});
  Activity activity{.times_ns = {0, 10'000'000}};
  for (uint32_t at = 2; at < 50; ++at) {
    activity.times_ns.push_back(at * uint64_t{10'000'000});
    Point point = arena.points.back();
    point.at = at;
    point.active = 1'000 + at % 2;
    arena.points.push_back(point);
  }
  activity.arenas.push_back(arena);
  return activity;
}

bool purges(const Activity& activity) {
  const ArenaActivity& arena = activity.arenas[0];
  return purged_all(arena, arena.points[0], arena.points[1]);
}

TEST(OwnPurge, leaves_nothing) {
  EXPECT_TRUE(purges(flushed(0)));
  EXPECT_FALSE(purges(flushed(1)));
}

TEST(OwnPurge, is_not_told_apart_where_all_is_purged_at_once) {
  Activity activity = flushed(0);
  activity.arenas[0].dirty_ms = 0;
  EXPECT_FALSE(purges(activity));
}

TEST(OwnPurge, of_little_may_be_decay) {
  Activity activity = flushed(0);
  activity.arenas[0].points[0].active = 2'000;
  EXPECT_FALSE(purges(activity));
}

TEST(OwnPurge, happens_under_all_settings) {
  for (const Settings& settings : {Settings{-1, 0, false}, Settings{10'000, 10'000, false}}) {
    const Outcome out = simulate(flushed(0), settings, {}, {}, Begin::as_read);
    EXPECT_NEAR(static_cast<double>(out.forced), 49'000, 10);
    EXPECT_LT(out.mean_resident, 3'000);
    EXPECT_GT(simulate(flushed(1), settings, {}, {}, Begin::as_read).mean_resident, 40'000);
  }
}

}  // namespace
}  // namespace jemtrace::advise
