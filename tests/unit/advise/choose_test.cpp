#include "advise/choose.hpp"

#include <gtest/gtest.h>

#include <algorithm>

namespace jemtrace::advise {
namespace {

constexpr double mib = 1 << 20;

Candidate candidate(double resident, double cpu) {
  Candidate one;
  one.outcome.seconds = 1;
  one.outcome.mean_resident = resident;
  one.outcome.app_purge_ns = cpu * 1e9;
  return one;
}

TEST(Front, is_what_nobody_beats_in_both) {
  std::vector<Candidate> all = {candidate(100, 0.5), candidate(200, 0.1), candidate(200, 0.2),
                                candidate(300, 0.3), candidate(400, 0)};
  mark_front(all);
  std::vector<bool> front;
  std::transform(all.begin(), all.end(), std::back_inserter(front), [](const auto& c) { return c.front; });
  EXPECT_EQ(front, (std::vector<bool>{true, true, false, false, true}));
}

TEST(Front, keeps_both_of_a_tie) {
  std::vector<Candidate> all = {candidate(100, 0.5), candidate(100, 0.5)};
  mark_front(all);
  EXPECT_TRUE(all[0].front && all[1].front);
}

// Held against paid: at once, a second, ten seconds, never.
const std::vector<Price> typical = {
    {100 * mib, 0.2, 0.2}, {101 * mib, 0.05, 0.05}, {300 * mib, 0.002, 0.002}, {900 * mib, 0.0018, 0.0018}};

TEST(Best, memory_takes_the_cheaper_of_what_holds_the_same) {
  EXPECT_EQ(best_for(Goal::memory, typical, {}), 1U);
}

TEST(Best, memory_is_not_bought_at_any_price) {
  const std::vector<Price> prices = {
      {50 * mib, 0.47, 0.47}, {60 * mib, 0.02, 0.02}, {100 * mib, 0.001, 0.001}};
  EXPECT_EQ(best_for(Goal::memory, prices, 2), 1U);
  EXPECT_EQ(best_for(Goal::memory, prices, 0), 0U) << "it costs that now";
}

TEST(Best, latency_takes_the_smaller_of_what_costs_the_same) {
  EXPECT_EQ(best_for(Goal::latency, typical, {}), 2U);
}

TEST(Best, balanced_weighs_memory_against_cpu) {
  EXPECT_EQ(best_for(Goal::balanced, typical, {}), 1U);
  const std::vector<Price> dear = {{100 * mib, 0.2, 0.2}, {300 * mib, 0.002, 0.002}};
  EXPECT_EQ(best_for(Goal::balanced, dear, {}), 1U);
}

TEST(Best, stays_with_the_current_one_when_nothing_is_better) {
  const std::vector<Price> same = {{100 * mib, 0.01, 0.01}, {100 * mib, 0.01, 0.01}};
  for (const Goal goal : goals) {
    EXPECT_EQ(best_for(goal, same, 1), 1U);
  }
}

TEST(Grid, has_the_current_settings) {
  const Settings odd{777, 5, true};
  const auto grid = default_grid(odd);
  EXPECT_EQ(std::count(grid.begin(), grid.end(), odd), 1);
  const auto usual = default_grid({10'000, 0, false});
  EXPECT_EQ(std::count(usual.begin(), usual.end(), Settings{10'000, 0, false}), 1);
}

TEST(Grid, reads_what_the_user_wants) {
  const auto grid = parse_grid("dirty=100,-1 bg=off,on", {10'000, 0, false});
  ASSERT_TRUE(grid);
  EXPECT_EQ(grid->size(), 5U);
  EXPECT_NE(std::find(grid->begin(), grid->end(), Settings{-1, 0, true}), grid->end());
}

TEST(Grid, refuses_nonsense) {
  for (const char* text : {"dirty=-2", "dirty=1s", "bg=yes", "tcache=off", "dirty=", "dirty"}) {
    EXPECT_FALSE(parse_grid(text, {})) << text;
  }
}

TEST(Conf, names_what_differs) {
  EXPECT_EQ(conf_of({1'000, 0, true}, Settings{10'000, 0, false}),
            "dirty_decay_ms:1000,background_thread:true");
  EXPECT_EQ(conf_of({1'000, 0, false}, {}), "dirty_decay_ms:1000,muzzy_decay_ms:0,background_thread:false");
  EXPECT_EQ(conf_of({1'000, 0, false}, Settings{1'000, 0, false}), "");
}

}  // namespace
}  // namespace jemtrace::advise
