#include <gtest/gtest.h>

#include "advise/simulate.hpp"

namespace jemtrace::advise {
namespace {

constexpr uint64_t ms = 1'000'000;

/// An arena of 1 000 active pages, give or take one, of which in each 10 ms `passing` come from elsewhere
/// while fewer than `enough` are dirty.
Activity leaky(uint64_t enough, uint64_t passing) {
  Recorder recorder(4096);
  uint64_t dirty = 0;
  uint64_t purged = 0;
  for (uint64_t i = 1; i < 400; ++i) {
    dirty += dirty < enough ? passing : 0;
    if (i % 50 == 0) {
      purged += dirty;
      dirty = 0;
    }
    ledger::Reading reading;
    reading.at_ns = i * 10 * ms;
    ledger::ArenaReading arena{.index = 0};
    arena.active_pages = 1'000 + i % 2;
    arena.dirty.pages = dirty;
    arena.muzzy.pages = 0;
    arena.dirty_decay.time_ms = 10'000;
    arena.dirty_decay.purged_pages = purged;
    arena.muzzy_decay.time_ms = 0;
    arena.muzzy_decay.purged_pages = 0;
    reading.arenas.push_back(arena);
    recorder.add(reading);
  }
  return recorder.take();
}

TEST(Bypass, is_seen_where_few_pages_are_dirty) {
  const Activity activity = leaky(200, 10);
  const auto& bypass = activity.arenas[0].bypass;
  ASSERT_GE(bypass.size(), 5U);
  EXPECT_NEAR(bypass.front().pages_per_s, 1'000, 150);
  EXPECT_LT(bypass.back().pages_per_s, 100);
}

TEST(Bypass, is_not_seen_where_all_is_served) {
  const Activity activity = leaky(0, 0);
  for (const Bypass& one : activity.arenas[0].bypass) {
    EXPECT_LT(one.pages_per_s, 60);
  }
}

TEST(Bypass, keeps_dirty_pages_and_comes_back_by_faults) {
  const Activity activity = leaky(200, 10);
  const Outcome never = simulate(activity, {-1, 0, false}, {}, {}, Begin::empty);
  // Beyond what was seen, allocations go past ever less, and do not stop at once.
  EXPECT_NEAR(static_cast<double>(never.peak_resident), 1'200, 100);
  const Outcome soon = simulate(activity, {100, 0, false}, {}, {}, Begin::empty);
  EXPECT_LT(soon.peak_resident, 1'200U);
  EXPECT_GT(soon.refaulted, 2'000U);
}

TEST(Bypass, of_what_is_needed_more_is_a_share) {
  // Grows by 0 to 40 pages at a time, of which a quarter goes past the dirty pages, which are refilled by
  // frees.
  Recorder recorder(4096);
  uint64_t active = 1'000;
  uint64_t dirty = 500;
  for (uint64_t i = 1; i < 400; ++i) {
    const uint64_t step = i % 11 * 4;
    const bool falls = i % 22 >= 11;
    active = falls ? active - step : active + step;
    dirty = falls ? dirty + step : dirty - (step - step / 4);
    ledger::Reading reading;
    reading.at_ns = i * 10 * ms;
    ledger::ArenaReading arena{.index = 0};
    arena.active_pages = active;
    arena.dirty.pages = dirty;
    arena.muzzy.pages = 0;
    arena.dirty_decay.time_ms = 10'000;
    arena.dirty_decay.purged_pages = 0;
    arena.muzzy_decay.time_ms = 0;
    arena.muzzy_decay.purged_pages = 0;
    reading.arenas.push_back(arena);
    recorder.add(reading);
  }
  const Activity activity = recorder.take();
  ASSERT_FALSE(activity.arenas[0].bypass.empty());
  for (const Bypass& one : activity.arenas[0].bypass) {
    EXPECT_NEAR(one.share, 0.25, 0.1);
    EXPECT_LT(one.pages_per_s, 100);
  }
}

TEST(Bypass, is_unknown_without_counters) {
  Recorder recorder(4096);
  for (uint64_t i = 1; i < 400; ++i) {
    ledger::Reading reading;
    reading.at_ns = i * 10 * ms;
    ledger::ArenaReading arena{.index = 0};
    arena.active_pages = 1'000 + i;
    arena.dirty.pages = 50;
    arena.muzzy.pages = 0;
    arena.dirty_decay.time_ms = 10'000;
    arena.muzzy_decay.time_ms = 0;
    reading.arenas.push_back(arena);
    recorder.add(reading);
  }
  EXPECT_TRUE(recorder.take().arenas[0].bypass.empty());
}

}  // namespace
}  // namespace jemtrace::advise
