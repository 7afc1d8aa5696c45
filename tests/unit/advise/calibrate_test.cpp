#include "advise/calibrate.hpp"

#include <gtest/gtest.h>

#include <cmath>

namespace jemtrace::advise {
namespace {

/// A program that replaces 2 000 pages in each 10 ms, and holds 20 000 more in every other second.
Activity batches() {
  Activity activity{.from_start = true};
  ArenaActivity arena{.dirty_ms = 1'000};
  arena.asked = {{5, 100}, {9, 100}, {17, 100}, {33, 100}, {65, 100}};
  for (uint32_t i = 0; i < 800; ++i) {
    activity.times_ns.push_back(1'000'000'000 + i * uint64_t{10'000'000});
    const uint64_t active = 3'000 + (i / 100 % 2 == 0 ? 20'000 : 0) + i % 2;
    arena.points.push_back({.at = i, .active = active, .dirty = 1, .gone = 0, .taken = i * uint64_t{2'000}});
  }
  activity.arenas.push_back(arena);
  return activity;
}

/// As it would be measured if so large a share changed.
Input recorded(double changing_share, const Settings& settings) {
  Input in{.activity = batches(), .current = settings};
  in.model.changing_share = changing_share;
  in.model.busy_chances = 20;
  const Outcome real = simulate(in.activity, settings, in.model, {}, Begin::empty, 3);
  in.measured.refaulted_pages = real.refaulted;
  for (Point& point : in.activity.arenas[0].points) {
    // So that as much is resident on average.
    point.dirty = static_cast<uint64_t>(real.mean_resident) > 12'999
                      ? static_cast<uint64_t>(real.mean_resident) - 12'999
                      : 0;
  }
  in.model.changing_share = 1;
  return in;
}

TEST(Calibrate, finds_how_much_is_replaced_all_the_time) {
  for (const double share : {1.0, 0.125}) {
    Input in = recorded(share, {1'000, 0, false});
    in.others.push_back(recorded(share, {100, 0, false}));
    calibrate(in);
    EXPECT_NEAR(in.model.changing_share, share, share / 3);
    EXPECT_LE(in.least_changing, share);
    EXPECT_GE(in.most_changing, share);
  }
}

TEST(Calibrate, leaves_open_what_the_recording_does_not_tell) {
  Input in{.activity = {.times_ns = {1, 2}, .arenas = {{.points = {{.active = 100}}}}}};
  calibrate(in);
  EXPECT_EQ(in.most_changing, 1);
  EXPECT_LT(in.least_changing, 0.1);
  EXPECT_NEAR(in.model.changing_share, std::sqrt(in.least_changing), 0.01) << "the middle";
}

TEST(Calibrate, takes_the_mean_of_what_all_recordings_saw) {
  Input in = recorded(1, {1'000, 0, false});
  in.model.busy_chances = 10;
  in.others.push_back(recorded(1, {100, 0, false}));
  calibrate(in);
  EXPECT_EQ(in.model.busy_chances, 15);
  EXPECT_FALSE(in.model.idle_chances);
}

}  // namespace
}  // namespace jemtrace::advise
