#include "ledger/ranges.hpp"

#include <gtest/gtest.h>

namespace jemtrace::ledger {
namespace {

TEST(Ranges, know_nothing_at_first) {
  EXPECT_EQ(Ranges().state_of(0x1000, 0x1000), std::nullopt);
  EXPECT_EQ(Ranges().bytes_in(JT_STATE_MUZZY), 0U);
}

TEST(Ranges, cut_what_was_there_before) {
  Ranges ranges;
  ranges.enter(0x1000, 0x4000, JT_STATE_MUZZY);
  ranges.enter(0x2000, 0x1000, JT_STATE_RETAINED);
  EXPECT_EQ(ranges.state_of(0x1000, 0x1000), JT_STATE_MUZZY);
  EXPECT_EQ(ranges.state_of(0x2000, 0x1000), JT_STATE_RETAINED);
  EXPECT_EQ(ranges.state_of(0x3000, 0x2000), JT_STATE_MUZZY);
  EXPECT_EQ(ranges.state_of(0x1000, 0x2000), std::nullopt);
  EXPECT_EQ(ranges.bytes_in(JT_STATE_MUZZY), 0x3000U);
  EXPECT_EQ(ranges.bytes_in(JT_STATE_RETAINED), 0x1000U);
}

TEST(Ranges, join_neighbours_of_one_state) {
  Ranges ranges;
  ranges.enter(0x1000, 0x1000, JT_STATE_MUZZY);
  ranges.enter(0x3000, 0x1000, JT_STATE_MUZZY);
  ranges.enter(0x2000, 0x1000, JT_STATE_MUZZY);
  EXPECT_EQ(ranges.state_of(0x1000, 0x3000), JT_STATE_MUZZY);
  EXPECT_EQ(ranges.state_of(0x1000, 0x3001), std::nullopt);
}

TEST(Ranges, forget_what_is_unmapped) {
  Ranges ranges;
  ranges.enter(0x1000, 0x3000, JT_STATE_RETAINED);
  ranges.forget(0x2000, 0x1000);
  EXPECT_EQ(ranges.state_of(0x2000, 0x1000), std::nullopt);
  EXPECT_EQ(ranges.bytes_in(JT_STATE_RETAINED), 0x2000U);
}

TEST(Ranges, survive_ranges_that_wrap_around_or_are_empty) {
  Ranges ranges;
  ranges.enter(0x1000, 0, JT_STATE_MUZZY);
  EXPECT_EQ(ranges.bytes_in(JT_STATE_MUZZY), 0U);
  ranges.enter(~uint64_t{0} - 0xfff, 0x10000, JT_STATE_MUZZY);
  EXPECT_EQ(ranges.state_of(~uint64_t{0} - 0xfff, 0x10000), JT_STATE_MUZZY);
}

}  // namespace
}  // namespace jemtrace::ledger
