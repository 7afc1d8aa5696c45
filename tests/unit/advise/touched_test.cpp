#include <gtest/gtest.h>

#include "advise/simulate.hpp"

namespace jemtrace::advise {
namespace {

constexpr uint64_t ms = 1'000'000;

/// An arena of 1 000 active pages, give or take one, that replaces 20 by 20 others in each 10 ms.
Activity churning(bool counted = true) {
  Recorder recorder(4096);
  for (uint64_t i = 1; i < 400; ++i) {
    ledger::Reading reading;
    reading.at_ns = i * 10 * ms;
    ledger::ArenaReading arena{.index = 0};
    arena.active_pages = 1'000 + i % 2;
    arena.dirty.pages = arena.muzzy.pages = 0;
    arena.dirty_decay.time_ms = 10'000;
    arena.muzzy_decay.time_ms = 0;
    if (counted) {
      arena.dirty_decay.purged_pages = arena.muzzy_decay.purged_pages = 0;
      // Of two sizes; the smaller one is counted in two places.
      arena.taken = {.pages = i * 20, .sizes = {{4, i}, {12, i}, {4, i}}};
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

TEST(Asked, is_how_many_blocks_of_each_size_there_were_within_the_time) {
  const auto asked = churning().arenas[0].asked;
  ASSERT_EQ(asked.size(), 2U);
  EXPECT_EQ(asked[0].pages, 4U);
  EXPECT_EQ(asked[0].extents, 2 * 398U);
  EXPECT_EQ(asked[1].pages, 12U);
  EXPECT_EQ(asked[1].extents, 398U);
  EXPECT_TRUE(churning(false).arenas[0].asked.empty());
}

TEST(Asked, is_unknown_where_the_counters_cannot_be) {
  Recorder recorder(4096);
  for (uint64_t i = 1; i < 3; ++i) {
    ledger::Reading reading;
    reading.at_ns = i * 10 * ms;
    ledger::ArenaReading arena{.index = 0};
    arena.active_pages = 1'000 + i;
    arena.dirty.pages = arena.muzzy.pages = 0;
    arena.dirty_decay = {.time_ms = 10'000, .purged_pages = 0};
    arena.muzzy_decay = {.time_ms = 0, .purged_pages = 0};
    arena.taken = {.pages = i == 1 ? 0 : ~uint64_t{0}, .sizes = {{0, i}, {~uint64_t{0}, i}, {3, 5 - i}}};
    reading.arenas.push_back(arena);
    recorder.add(reading);
  }
  const Activity activity = recorder.take();
  EXPECT_FALSE(activity.arenas[0].points[1].taken);
  EXPECT_TRUE(activity.arenas[0].asked.empty());
}

TEST(TouchedShare, is_of_the_pages_that_were_purged_and_came_back) {
  const auto returned = returned_pages(played_twice());
  ASSERT_TRUE(returned);
  EXPECT_EQ(*returned, 10'000);
  EXPECT_NEAR(touched_share(*returned, 9'000), 0.9, 0.01);
  EXPECT_EQ(touched_share(*returned, 20'000), 1);
}

TEST(TouchedShare, is_all_where_too_little_came_back) {
  EXPECT_EQ(touched_share(1'000, 1), 1);
  EXPECT_FALSE(returned_pages(churning(false)));
}

TEST(TouchedShare, makes_fewer_faults) {
  Model model;
  model.touched_share = 0.5;
  const Activity activity = churning();
  const Outcome all = simulate(activity, {100, 0, false}, {}, {.fault_ns = 100}, Begin::empty);
  const Outcome half = simulate(activity, {100, 0, false}, model, {.fault_ns = 100}, Begin::empty);
  EXPECT_GT(all.refaulted, 100U);
  EXPECT_NEAR(static_cast<double>(half.refaulted), static_cast<double>(all.refaulted) / 2, 1);
  EXPECT_NEAR(half.fault_ns, all.fault_ns / 2, 100);
}

TEST(Misses, hold_more_than_ever_was_in_use_at_a_time) {
  const Outcome never = simulate(churning(), {-1, 0, false}, {}, {}, Begin::empty);
  EXPECT_GT(never.peak_resident, 1'020U) << "no unused extent is large enough at times";
  EXPECT_LT(never.peak_resident, 1'500U);
  EXPECT_EQ(never.refaulted, 0U);
  const Outcome soon = simulate(churning(), {100, 0, false}, {}, {}, Begin::empty);
  EXPECT_LT(soon.mean_resident, never.mean_resident);
}

TEST(Misses, are_none_where_no_sizes_are_known) {
  EXPECT_LT(simulate(churning(false), {-1, 0, false}, {}, {}, Begin::empty).peak_resident, 1'005U);
}

TEST(Misses, at_once_faults_in_all_that_is_asked_for) {
  const Outcome out = simulate(churning(), {0, 0, false}, {}, {}, Begin::empty);
  EXPECT_GT(out.refaulted, 6'000U) << "398 times 20 pages, of which some are new";
  EXPECT_LT(out.refaulted, 398 * 20U);
  EXPECT_FALSE(out.at_least);
}

TEST(Misses, at_once_faults_at_least_what_grows_where_nothing_is_counted) {
  const Outcome out = simulate(churning(false), {0, 0, false}, {}, {}, Begin::empty);
  EXPECT_LT(out.refaulted, 500U);
  EXPECT_TRUE(out.at_least);
}

}  // namespace
}  // namespace jemtrace::advise
