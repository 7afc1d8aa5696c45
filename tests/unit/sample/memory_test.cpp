#include "sample/memory.hpp"

#include <gtest/gtest.h>
#include <unistd.h>

namespace jemtrace::sample {
namespace {

using namespace std::chrono_literals;

TEST(ParseStatm, takes_the_resident_pages) {
  EXPECT_EQ(parse_statm("1000 250 30 1 0 200 0\n")->rss_bytes,
            250U * static_cast<uint64_t>(::sysconf(_SC_PAGESIZE)));
  EXPECT_FALSE(parse_statm(""));
  EXPECT_FALSE(parse_statm("1000 x"));
}

TEST(ParseSmapsRollup, finds_its_fields_at_line_starts) {
  const auto rollup = parse_smaps_rollup(
      "55-7ff ---p 00000000 00:00 0    [rollup]\nRss:     1164 kB\nPss_Rss: 1 kB\nAnonymous:  900 "
      "kB\nLazyFree:  64 kB\n");
  ASSERT_TRUE(rollup);
  EXPECT_EQ(rollup->rss_bytes, 1164U * 1024);
  EXPECT_EQ(rollup->anonymous_bytes, 900U * 1024);
  EXPECT_EQ(rollup->lazyfree_bytes, 64U * 1024);
}

TEST(ParseSmapsRollup, says_nothing_when_a_field_is_missing) {
  EXPECT_FALSE(parse_smaps_rollup("Rss: 1164 kB\nAnonymous: 900 kB\n"));  // before 4.12
  EXPECT_FALSE(parse_smaps_rollup(""));
}

TEST(Budget, holds_reads_to_their_share_of_the_time) {
  Budget budget(0.001);
  const auto start = Budget::Clock::time_point{} + 1h;
  EXPECT_TRUE(budget.allows(start));
  budget.spent(start, 3ms);
  EXPECT_FALSE(budget.allows(start + 2999ms));
  EXPECT_TRUE(budget.allows(start + 3s));
  EXPECT_EQ(budget.total(), 3ms);
}

}  // namespace
}  // namespace jemtrace::sample
