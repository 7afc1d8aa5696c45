#include <gtest/gtest.h>

#include <cmath>

#include "advise/simulate.hpp"

namespace jemtrace::advise {
namespace {

constexpr uint64_t ms = 1'000'000;

/// An arena of 1 000 active pages, give or take one, that frees 20 and asks for 20 others in each 10 ms, of
/// which a share of exp(-dirty / `pages`) comes from elsewhere. All is purged every half second.
Activity churning(double pages, bool counted = true) {
  Recorder recorder(4096);
  double dirty = 0;
  double purged = 0;
  for (uint64_t i = 1; i < 400; ++i) {
    dirty += pages > 0 ? 20 * std::exp(-dirty / pages) : 0;
    if (i % 50 == 0) {
      purged += dirty;
      dirty = 0;
    }
    ledger::Reading reading;
    reading.at_ns = i * 10 * ms;
    ledger::ArenaReading arena{.index = 0};
    arena.active_pages = 1'000 + i % 2;
    arena.dirty.pages = static_cast<uint64_t>(dirty);
    arena.muzzy.pages = 0;
    arena.dirty_decay.time_ms = 10'000;
    arena.muzzy_decay.time_ms = 0;
    if (counted) {
      arena.dirty_decay.purged_pages = static_cast<uint64_t>(purged);
      arena.muzzy_decay.purged_pages = 0;
      arena.taken = {.pages = i * 20, .extents = i * 2};
    }
    reading.arenas.push_back(arena);
    recorder.add(reading);
  }
  return recorder.take();
}

/// 10 000 pages that are new, purged, and taken again.
Activity played_twice() {
  ArenaActivity arena;
  arena.points = {{.at = 0, .active = 100, .gone = 0, .taken = 100},
                  {.at = 1, .active = 10'100, .gone = 0, .taken = 10'100},
                  {.at = 2, .active = 100, .gone = 10'000, .taken = 10'100},
                  {.at = 3, .active = 10'100, .gone = 10'000, .taken = 20'100}};
  return {.times_ns = {1, 2, 3, 4}, .arenas = {arena}};
}

TEST(Misses, become_fewer_the_more_is_held) {
  for (const double pages : {20.0, 50.0, 200.0}) {
    EXPECT_NEAR(miss_pages(churning(pages).arenas[0]).value_or(0), pages, pages / 4);
  }
}

TEST(Misses, are_none_where_all_is_served) {
  EXPECT_LT(miss_pages(churning(0).arenas[0]).value_or(1000), 5);
}

TEST(Misses, are_unknown_without_counters) {
  EXPECT_FALSE(miss_pages(churning(50, false).arenas[0]));
}

TEST(Misses, are_unknown_where_the_counters_cannot_be) {
  Recorder recorder(4096);
  for (uint64_t i = 1; i < 3; ++i) {
    ledger::Reading reading;
    reading.at_ns = i * 10 * ms;
    ledger::ArenaReading arena{.index = 0};
    arena.active_pages = 1'000 + i;
    arena.dirty.pages = arena.muzzy.pages = 0;
    arena.dirty_decay = {.time_ms = 10'000, .purged_pages = 0};
    arena.muzzy_decay = {.time_ms = 0, .purged_pages = 0};
    arena.taken = {.pages = i == 1 ? 0 : ~uint64_t{0}, .extents = i};
    reading.arenas.push_back(arena);
    recorder.add(reading);
  }
  EXPECT_FALSE(recorder.take().arenas[0].points[1].taken);
}

TEST(Misses, keep_pages_dirty_and_come_back_by_faults) {
  const Activity activity = churning(50);
  const Outcome never = simulate(activity, {-1, 0, false}, {}, {}, Begin::empty);
  EXPECT_GT(never.peak_resident, 1'100U);
  EXPECT_LT(never.peak_resident, 1'500U);
  const Outcome soon = simulate(activity, {100, 0, false}, {}, {}, Begin::empty);
  EXPECT_LT(soon.mean_resident, never.mean_resident);
  EXPECT_GT(soon.refaulted, 1'000U);
}

TEST(Misses, block_size_is_the_mean_of_what_was_asked_for) {
  EXPECT_DOUBLE_EQ(churning(50).arenas[0].block_pages.value_or(0), 10);
}

TEST(TouchedShare, is_of_the_pages_that_were_purged_and_came_back) {
  const Activity activity = played_twice();
  EXPECT_NEAR(touched_share(activity, 9'000), 0.9, 0.01);
  EXPECT_EQ(touched_share(activity, 20'000), 1);
}

TEST(TouchedShare, is_all_where_too_little_came_back) {
  EXPECT_EQ(touched_share(churning(20), 1), 1);
  EXPECT_EQ(touched_share(churning(50, false), 1), 1);
}

TEST(TouchedShare, makes_fewer_faults) {
  Model model;
  model.touched_share = 0.5;
  const Activity activity = churning(50);
  const Outcome all = simulate(activity, {100, 0, false}, {}, {.fault_ns = 100}, Begin::empty);
  const Outcome half = simulate(activity, {100, 0, false}, model, {.fault_ns = 100}, Begin::empty);
  EXPECT_NEAR(static_cast<double>(half.refaulted), static_cast<double>(all.refaulted) / 2, 1);
  EXPECT_NEAR(half.fault_ns, all.fault_ns / 2, 1);
}

TEST(Misses, at_once_faults_in_all_that_is_asked_for) {
  const Outcome out = simulate(churning(50), {0, 0, false}, {}, {}, Begin::empty);
  EXPECT_NEAR(static_cast<double>(out.refaulted), 398 * 20, 100);
  EXPECT_FALSE(out.at_least);
}

TEST(Misses, at_once_faults_at_least_what_grows_where_nothing_is_counted) {
  const Outcome out = simulate(churning(50, false), {0, 0, false}, {}, {}, Begin::empty);
  EXPECT_LT(out.refaulted, 500U);
  EXPECT_TRUE(out.at_least);
}

}  // namespace
}  // namespace jemtrace::advise
