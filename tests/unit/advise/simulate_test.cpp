#include "advise/simulate.hpp"

#include <gtest/gtest.h>

#include <functional>

#include "advise/decay.hpp"

namespace jemtrace::advise {
namespace {

constexpr uint64_t ms = 1'000'000;

/// One arena, read every 10 ms for `seconds`; `active` says how many pages at which ms.
Activity played(unsigned seconds, const std::function<uint64_t(uint64_t)>& active) {
  Activity activity;
  ArenaActivity arena;
  for (uint32_t i = 0; i <= seconds * 100; ++i) {
    activity.times_ns.push_back(1'000 * ms + i * 10 * ms);
    const uint64_t pages = active(i * 10);
    if (i == 0 || arena.points.back().active != pages) {
      arena.points.push_back({.at = i, .active = pages});
    }
  }
  activity.arenas.push_back(arena);
  return activity;
}

/// 10 000 pages from the beginning of each second for 200 ms, and a page that comes and goes all the time.
uint64_t batches(uint64_t at) {
  return (at % 1000 >= 100 && at % 1000 < 300 ? 10'000 : 0) + 1'000 + at / 10 % 2;
}

constexpr Costs costs{.lazy_ns = 50, .forced_ns = 100, .fault_ns = 400};

Outcome run(const Activity& activity, const Settings& settings, Model model = {}) {
  return simulate(activity, settings, model, costs, Begin::empty);
}

TEST(Simulate, without_decay_the_peak_stays_and_nothing_is_paid) {
  const Outcome out = run(played(5, batches), {-1, 0, false});
  EXPECT_EQ(out.purged(), 0U);
  EXPECT_EQ(out.refaulted, 0U);
  EXPECT_EQ(out.peak_resident, 11'001U);
  EXPECT_NEAR(out.mean_resident, 11'000, 400);
  EXPECT_FALSE(out.stall_p99_ns);
}

TEST(Simulate, decay_longer_than_the_pause_keeps_the_batch) {
  const Outcome out = run(played(5, batches), {10'000, 0, false});
  EXPECT_LT(out.refaulted, 4'000U) << "the curve takes some all the same";
  EXPECT_GT(out.mean_resident, 10'000);
}

TEST(Simulate, decay_shorter_than_the_pause_gives_it_back_and_faults_it_in_again) {
  const Outcome out = run(played(5, batches), {100, 0, false});
  EXPECT_NEAR(static_cast<double>(out.refaulted), 40'000, 2'000);
  EXPECT_NEAR(static_cast<double>(out.forced), 50'000, 2'000);
  EXPECT_LT(out.mean_resident, 5'000);
  EXPECT_DOUBLE_EQ(out.fault_ns, static_cast<double>(out.refaulted) * costs.fault_ns);
  EXPECT_TRUE(out.stall_p99_ns);
}

TEST(Simulate, at_once_holds_only_what_is_active) {
  const Outcome out = run(played(5, batches), {0, 10'000, false});
  EXPECT_EQ(out.lazy, 0U) << "purging at once goes past the muzzy cache";
  EXPECT_NEAR(out.mean_resident, 1'000 + 2'000, 150);
  EXPECT_TRUE(out.at_least);
}

TEST(Simulate, muzzy_pages_come_back_without_a_fault) {
  const Outcome out = run(played(5, batches), {100, -1, false});
  EXPECT_EQ(out.refaulted, 0U);
  EXPECT_GT(out.lazily_reused, 35'000U);
  EXPECT_EQ(out.forced, 0U);
  EXPECT_GT(out.mean_resident, 10'000);
}

TEST(Simulate, muzzy_pages_go_when_their_time_is_over) {
  const Outcome out = run(played(5, batches), {100, 100, false});
  EXPECT_GT(out.forced, 40'000U);
  EXPECT_GT(out.refaulted, 30'000U);
}

/// 20 000 pages for half a second, then nothing at all.
uint64_t peak_then_silence(uint64_t at) {
  return at < 500 ? 20'000 : 1'000;
}

TEST(Simulate, idle_process_does_not_decay_by_itself) {
  const Outcome out = run(played(5, peak_then_silence), {1'000, 0, false});
  EXPECT_LT(out.purged(), 10U);
}

TEST(Simulate, idle_process_decays_in_the_background) {
  // The epoch in which the pages became free begins with a tick behind it.
  const auto activity =
      played(5, [](uint64_t at) { return peak_then_silence(at) + (at < 700 ? at / 10 % 2 : 0); });
  const Outcome out = run(activity, {1'000, 0, true});
  EXPECT_NEAR(static_cast<double>(out.forced), 19'000, 600);
  EXPECT_EQ(out.app_purge_ns, 0);
  EXPECT_FALSE(out.stall_p99_ns);
}

TEST(Simulate, rare_ticks_let_an_idle_process_decay_late) {
  const auto activity = played(10, peak_then_silence);
  Model model;
  model.idle_chances = 2;
  EXPECT_EQ(run(activity, {1'000, 0, false}, model).forced, 19'000U);
}

TEST(Simulate, oversize_extents_do_not_wait) {
  Model model;
  model.oversize_pages = 2'048;
  auto activity = played(5, [](uint64_t at) { return at % 1000 < 300 ? 40'000 + at / 10 % 2 : 0; });
  activity.arenas[0].asked = {{20, 1}};
  EXPECT_GT(run(activity, {10'000, 0, false}, model).forced,
            run(activity, {10'000, 0, false}).forced + 50'000);
  EXPECT_EQ(run(activity, {10'000, -1, false}, model).forced, 0U) << "never is never";
  model.background_ends_oversize = true;
  EXPECT_EQ(run(activity, {10'000, 0, true}, model).forced, run(activity, {10'000, 0, true}).forced);
}

TEST(Simulate, arena_with_times_of_its_own_keeps_them) {
  Activity activity = played(5, batches);
  activity.arenas.front().dirty_ms = 0;
  Model model;
  model.usual = Settings{10'000, 0, false};
  EXPECT_GT(run(activity, {-1, 0, false}, model).forced, 40'000U);
}

TEST(Simulate, settled_time_is_as_long_as_the_recording) {
  const Outcome out = simulate(played(5, batches), {300, 0, false}, {}, costs, Begin::settled);
  EXPECT_NEAR(out.seconds, 5, 0.02);
  EXPECT_NEAR(static_cast<double>(out.refaulted), 50'000, 3'000) << "the first batch faults, too";
}

TEST(Simulate, same_input_same_outcome) {
  const auto activity = played(5, batches);
  const Outcome a = simulate(activity, {300, 300, true}, {}, costs, Begin::empty, 3);
  const Outcome b = simulate(activity, {300, 300, true}, {}, costs, Begin::empty, 3);
  EXPECT_EQ(a.purged(), b.purged());
  EXPECT_EQ(a.mean_resident, b.mean_resident);
}

TEST(Simulate, goes_on_from_what_was_read) {
  auto activity = played(2, [](uint64_t at) { return 1'000 + at / 10 % 2; });
  activity.arenas[0].points[0].dirty = 5'000;
  activity.arenas[0].points[0].muzzy = 700;
  const Outcome out = simulate(activity, {-1, -1, false}, {}, costs, Begin::as_read);
  EXPECT_NEAR(out.mean_resident, 6'700, 5);
  EXPECT_EQ(out.refaulted, 0U);
  EXPECT_NEAR(out.seconds, 2, 0.02);
}

TEST(Simulate, plays_a_large_heap_as_a_smaller_one) {
  const auto large = played(5, [](uint64_t at) { return 20 * batches(at); });
  const Outcome out = run(large, {100, 0, false});
  EXPECT_NEAR(static_cast<double>(out.refaulted), 20 * 40'000, 20 * 2'000);
  EXPECT_NEAR(static_cast<double>(out.peak_resident), 20 * 11'001, 2'000);
}

TEST(Simulate, what_stays_is_not_replaced) {
  auto activity = played(5, [](uint64_t at) { return 10'000 + at / 10 % 2; });
  auto& arena = activity.arenas[0];
  arena.asked = {{5, 1}, {17, 1}, {65, 1}};
  for (Point& point : arena.points) {
    point.taken = uint64_t{point.at} * 1'000;
  }
  Model few;
  few.changing_share = 0.1;
  EXPECT_LT(run(activity, {-1, 0, false}, few).peak_resident, run(activity, {-1, 0, false}).peak_resident)
      << "what is freed lies together";
}

TEST(Recorder, keeps_points_where_something_moved) {
  Recorder recorder(4096);
  for (uint64_t i = 0; i < 10; ++i) {
    ledger::Reading reading;
    reading.at_ns = (i + 1) * 10 * ms;
    ledger::ArenaReading arena{.index = 0};
    arena.active_pages = i < 5 ? 100 : 200;
    arena.dirty.pages = 0;
    arena.muzzy.pages = 0;
    arena.dirty_decay = {.time_ms = 10'000, .nmadvise = i, .purged_pages = i < 5 ? 0U : 72U};
    arena.muzzy_decay = {.time_ms = 0, .nmadvise = 0, .purged_pages = 0};
    reading.arenas.push_back(arena);
    recorder.add(reading);
  }
  const Activity activity = recorder.take();
  ASSERT_EQ(activity.arenas.size(), 1U);
  EXPECT_EQ(activity.arenas[0].points.size(), 2U);
  EXPECT_EQ(activity.arenas[0].points[1].at, 5U);
  EXPECT_EQ(activity.arenas[0].points[1].gone, 72U);
  EXPECT_EQ(activity.purged_pages(), 72U);
  EXPECT_EQ(activity.arenas[0].dirty_extents, 9U);
  EXPECT_EQ(activity.span_ns(), 90 * ms);
}

TEST(Recorder, leaves_out_a_reading_in_which_an_arena_is_unknown) {
  Recorder recorder(4096);
  ledger::Reading reading;
  reading.at_ns = ms;
  reading.arenas.emplace_back();
  recorder.add(reading);
  EXPECT_EQ(recorder.readings(), 0U);
  EXPECT_EQ(recorder.take().unread, 1U);
}

/// Readings every 10 ms of an arena whose epochs of 50 ms end `late` behind their deadlines, by the jitter.
Activity late_epochs(uint64_t late, bool busy) {
  Recorder recorder(4096);
  Decay decay(10'000, ms, 3);
  for (uint64_t now = ms; now < 20'000 * ms; now += ms) {
    if (now >= decay.deadline_ns() + late) {
      decay.maybe_advance(now, 0);
    }
    if (now % (10 * ms) != 0) {
      continue;
    }
    ledger::Reading reading;
    reading.at_ns = now;
    ledger::ArenaReading arena{.index = 0};
    arena.active_pages = busy ? now / ms : 1;
    arena.dirty.pages = 0;
    arena.muzzy.pages = 0;
    arena.dirty_decay.time_ms = 10'000;
    arena.dirty_decay.epoch_ns = decay.epoch_ns();
    arena.dirty_decay.deadline_ns = decay.deadline_ns();
    arena.muzzy_decay.time_ms = 0;
    reading.arenas.push_back(arena);
    recorder.add(reading);
  }
  return recorder.take();
}

TEST(Recorder, sees_how_often_a_busy_arena_gets_the_chance_to_decay) {
  // It waits for 25 ms: for two or three readings, at the last of which it is over.
  EXPECT_NEAR(*busy_rate(late_epochs(25 * ms, true).arenas[0].busy), 50, 10);
  EXPECT_FALSE(busy_rate(late_epochs(0, true).arenas[0].busy)) << "never seen waiting: at once";
  EXPECT_EQ(*busy_rate({.tries = 100, .tries_ns = 1'000 * ms, .came = 0}), 0);
  EXPECT_NEAR(*busy_rate({.tries = 100, .tries_ns = 1'000 * ms, .came = 50}), 69.3, 0.1);
}

TEST(Recorder, sees_how_seldom_an_idle_one_does) {
  EXPECT_NEAR(*idle_rate(late_epochs(500 * ms, false).arenas[0].idle), 2, 0.3);
  EXPECT_EQ(*idle_rate(late_epochs(100'000 * ms, false).arenas[0].idle), 0);
  EXPECT_FALSE(busy_rate(late_epochs(0, false).arenas[0].busy));
}

}  // namespace
}  // namespace jemtrace::advise
