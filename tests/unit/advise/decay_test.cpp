#include "advise/decay.hpp"

#include <gtest/gtest.h>

namespace jemtrace::advise {
namespace {

constexpr uint64_t ms = 1'000'000, start = 5'000 * ms;

TEST(Smoothstep, is_jemallocs_table) {
  // STEP(1), STEP(2), STEP(100), STEP(199) and STEP(200) of smoothstep.h.
  EXPECT_EQ(ledger::smoothstep(0), 0x14U);
  EXPECT_EQ(ledger::smoothstep(1), 0xa5U);
  EXPECT_EQ(ledger::smoothstep(99), 0x800000U);
  EXPECT_EQ(ledger::smoothstep(198), 0xffffebU);
  EXPECT_EQ(ledger::smoothstep(199), 0x1000000U);
}

TEST(Smoothstep, never_falls) {
  for (size_t i = 1; i < ledger::decay_steps; ++i) {
    EXPECT_GE(ledger::smoothstep(i), ledger::smoothstep(i - 1));
  }
}

TEST(Decay, first_epoch_begins_between_one_and_two_intervals_after_the_start) {
  Decay decay(1000, start, 1);
  EXPECT_EQ(decay.interval_ns(), 5 * ms);
  EXPECT_GE(decay.deadline_ns(), start + 5 * ms);
  EXPECT_LT(decay.deadline_ns(), start + 10 * ms);
  EXPECT_FALSE(decay.maybe_advance(decay.deadline_ns() - 1, 100));
  EXPECT_TRUE(decay.maybe_advance(decay.deadline_ns(), 100));
}

TEST(Decay, deadlines_are_jittered) {
  Decay decay(1000, start, 1);
  uint64_t least = 10 * ms;
  uint64_t most = 0;
  for (int i = 0; i < 100; ++i) {
    const uint64_t wait = decay.deadline_ns() - decay.epoch_ns();
    least = std::min(least, wait);
    most = std::max(most, wait);
    decay.maybe_advance(decay.deadline_ns(), 0);
  }
  EXPECT_LT(least, 6 * ms);
  EXPECT_GT(most, 9 * ms);
}

/// Pages that stay `after` so many intervals when a burst of them is seen at once.
uint64_t left_of(uint64_t burst, uint64_t intervals) {
  Decay decay(1000, start, 1);
  decay.maybe_advance(decay.deadline_ns(), burst);
  uint64_t held = burst;
  const uint64_t end = decay.epoch_ns() + intervals * decay.interval_ns();
  while (decay.epoch_ns() < end) {
    decay.maybe_advance(decay.deadline_ns(), held);
    held = std::min(held, decay.limit());
  }
  return held;
}

TEST(Decay, burst_goes_by_the_smooth_curve) {
  // The shares of reference: 89.6 % stay at a quarter of the time, 50 % at the half, 10.4 % at three
  // quarters.
  EXPECT_NEAR(static_cast<double>(left_of(100'000, 50)), 89'600, 1'500);
  EXPECT_NEAR(static_cast<double>(left_of(100'000, 100)), 50'000, 2'000);
  EXPECT_NEAR(static_cast<double>(left_of(100'000, 150)), 10'400, 1'500);
}

TEST(Decay, nothing_may_stay_when_the_decay_time_has_passed) {
  EXPECT_EQ(left_of(100'000, 200), 0U);
}

TEST(Decay, limit_never_rises_while_nothing_new_comes) {
  Decay decay(1000, start, 7);
  decay.maybe_advance(decay.deadline_ns(), 50'000);
  uint64_t before = decay.limit();
  for (int i = 0; i < 250; ++i) {
    decay.maybe_advance(decay.deadline_ns(), std::min<uint64_t>(before, 50'000));
    EXPECT_LE(decay.limit(), before);
    before = decay.limit();
  }
  EXPECT_EQ(before, 0U);
}

TEST(Decay, all_epochs_that_passed_are_advanced_at_once) {
  Decay decay(1000, start, 1);
  ASSERT_TRUE(decay.maybe_advance(start + 57 * decay.interval_ns() + 3, 10));
  EXPECT_EQ(decay.epoch_ns(), start + 57 * decay.interval_ns());
}

TEST(Decay, after_a_long_silence_everything_is_new) {
  // What a process freed before it fell silent has not aged: jemalloc has not looked.
  Decay decay(1000, start, 1);
  ASSERT_TRUE(decay.maybe_advance(start + 3'000 * ms, 4'000));
  EXPECT_EQ(decay.limit(), 4'000U);
  ASSERT_TRUE(decay.maybe_advance(start + 6'000 * ms, 4'000));
  EXPECT_EQ(decay.limit(), 0U);
}

TEST(Decay, pages_seen_once_do_not_count_again) {
  Decay decay(1000, start, 1);
  decay.maybe_advance(decay.deadline_ns(), 1'000);
  EXPECT_EQ(decay.newest(), 1'000U);
  decay.maybe_advance(decay.deadline_ns(), 1'000);
  EXPECT_EQ(decay.newest(), 0U);
  decay.maybe_advance(decay.deadline_ns(), 1'300);
  EXPECT_EQ(decay.newest(), 300U);
}

TEST(Decay, never_and_at_once_keep_no_epochs) {
  for (const int64_t time : {-1, 0}) {
    Decay decay(time, start, 1);
    EXPECT_FALSE(decay.maybe_advance(start + 100'000 * ms, 1'000));
    EXPECT_EQ(decay.ns_until_purge(5'000, 1'024), Decay::never);
  }
  EXPECT_TRUE(Decay(0, start, 1).at_once());
}

TEST(Decay, time_until_a_purge_is_when_that_many_are_due) {
  Decay decay(1000, start, 1);
  decay.maybe_advance(decay.deadline_ns(), 100'000);
  const uint64_t epochs = decay.ns_until_purge(100'000, 1'024) / decay.interval_ns();
  // 1 % is due after a tenth of the time.
  EXPECT_GE(epochs, 18U);
  EXPECT_LE(epochs, 24U);
  EXPECT_EQ(decay.ns_until_purge(1'000, 1'024), 200 * decay.interval_ns());
}

TEST(Decay, empty_cache_has_nothing_to_wait_for) {
  EXPECT_EQ(Decay(1000, start, 1).ns_until_purge(0, 1'024), Decay::never);
}

TEST(Decay, share_that_will_go_within_a_time) {
  const Decay decay(1000, start, 1);
  EXPECT_EQ(decay.purged_within(1'000 * ms, 1'000), 1'000U);
  EXPECT_EQ(decay.purged_within(0, 1'000), 0U);
  EXPECT_NEAR(static_cast<double>(decay.purged_within(500 * ms, 1'000)), 500, 2);
}

TEST(Decay, goes_on_from_what_was_read) {
  ledger::DecayReading read{.time_ms = 1000};
  read.epoch_ns = start;
  read.deadline_ns = start + 7 * ms;
  read.nunpurged_pages = 600;
  read.backlog_pages.assign(Decay::steps, 0);
  read.backlog_pages[99] = 1'000;
  Decay decay(1000, start, 1);
  ASSERT_TRUE(decay.resume(read));
  EXPECT_EQ(decay.limit(), 500U);
  EXPECT_EQ(decay.deadline_ns(), start + 7 * ms);
}

TEST(Decay, does_not_go_on_from_nonsense) {
  ledger::DecayReading read{.time_ms = 1000};
  read.epoch_ns = start;
  read.deadline_ns = start - 1;
  read.nunpurged_pages = 0;
  read.backlog_pages.assign(Decay::steps, 0);
  EXPECT_FALSE(Decay(1000, start, 1).resume(read));
  read.deadline_ns = start + 7 * ms;
  read.time_ms = 2000;
  EXPECT_FALSE(Decay(1000, start, 1).resume(read));
  read.time_ms = 1000;
  read.backlog_pages.pop_back();
  EXPECT_FALSE(Decay(1000, start, 1).resume(read));
}

}  // namespace
}  // namespace jemtrace::advise
