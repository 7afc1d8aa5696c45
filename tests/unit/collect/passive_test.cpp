#include "collect/passive.hpp"

#include <gtest/gtest.h>

#include <cstring>

namespace jemtrace::collect {
namespace {

constexpr uint64_t second = 1'000'000'000;
constexpr uint64_t mib = uint64_t{1} << 20;

jt_mallctl_event asked(const char* name, uint64_t value, uint64_t ts_ns) {
  jt_mallctl_event event{};
  event.h.ts_ns = ts_ns;
  event.api = JT_API_MALLCTL;
  event.value = value;
  event.value_bytes = 8;
  std::strncpy(event.name, name, sizeof event.name - 1);
  return event;
}

jt_mallctl_event counted(uint64_t ts_ns) {
  jt_mallctl_event event = asked("epoch", 2, ts_ns);
  event.wrote = 1;
  return event;
}

TEST(Passive, knows_nothing_at_first) {
  const Passive passive;
  EXPECT_EQ(passive.states(second).method, "");
  EXPECT_TRUE(passive.caveats().empty());
}

TEST(Passive, a_value_is_as_old_as_the_count_that_it_is_from) {
  Passive passive;
  passive.add(counted(1 * second));
  passive.add(asked("stats.allocated", 5 * mib, 3 * second));
  passive.add(asked("stats.active", 6 * mib, 3 * second));
  const ledger::States states = passive.states(4 * second);
  EXPECT_EQ(states.method, "passive");
  EXPECT_EQ(states.allocated_bytes, 5 * mib);
  EXPECT_EQ(states.active_bytes, 6 * mib);
  EXPECT_FALSE(states.dirty_bytes);
  EXPECT_EQ(states.age_ms, 3000U);
}

TEST(Passive, shows_each_answer_with_its_age) {
  Passive passive;
  passive.add(asked("stats.metadata", 1 * mib, 1 * second));
  passive.add(counted(2 * second));
  passive.add(asked("stats.active", 6 * mib, 3 * second));
  passive.compare(6 * mib, 6 * mib);
  const ledger::Asked all = passive.asked(4 * second);
  ASSERT_EQ(all.values.size(), 2U);
  EXPECT_EQ(all.values[0].name, "stats.active");
  EXPECT_EQ(all.values[0].value, 6 * mib);
  EXPECT_EQ(all.values[0].age_ms, 2000U);
  EXPECT_FALSE(all.values[1].age_ms);
  EXPECT_EQ(all.compared, 1U);
  EXPECT_EQ(all.different, 0U);
}

TEST(Passive, the_age_is_unknown_where_nobody_saw_it_counted) {
  Passive passive;
  passive.add(asked("stats.active", 6 * mib, 3 * second));
  EXPECT_FALSE(passive.states(4 * second).age_ms);
  // To read epoch counts nothing.
  passive.add(asked("epoch", 1, 5 * second));
  passive.add(asked("stats.active", 6 * mib, 5 * second));
  EXPECT_FALSE(passive.states(6 * second).age_ms);
}

TEST(Passive, learns_what_numbers_stand_for) {
  jt_mallctl_event by_number = asked("", 7 * mib, 2 * second);
  by_number.api = JT_API_BYMIB;
  by_number.mib_len = 2;
  by_number.mib[0] = 11;
  by_number.mib[1] = 1;
  Passive passive;
  passive.add(by_number);
  EXPECT_EQ(passive.find("stats.active"), nullptr);
  EXPECT_EQ(passive.caveats().size(), 1U);
  jt_mallctl_event translated = by_number;
  translated.api = JT_API_NAMETOMIB;
  std::strcpy(translated.name, "stats.active");
  passive.add(translated);
  passive.add(by_number);
  ASSERT_NE(passive.find("stats.active"), nullptr);
  EXPECT_EQ(passive.find("stats.active")->value, 7 * mib);
}

TEST(Passive, a_longer_mib_than_there_can_be_is_cut) {
  jt_mallctl_event event = asked("", 1, 1);
  event.api = JT_API_BYMIB;
  event.mib_len = 1000;
  Passive passive;
  passive.add(event);
  EXPECT_EQ(passive.states(2).method, "");
}

TEST(Passive, compares_only_what_was_counted_just_now) {
  Passive passive;
  EXPECT_FALSE(passive.is_fresh_active(asked("stats.active", mib, second)));
  passive.add(counted(second));
  EXPECT_TRUE(passive.is_fresh_active(asked("stats.active", mib, second + 1000)));
  EXPECT_FALSE(passive.is_fresh_active(asked("stats.allocated", mib, second + 1000)));
  EXPECT_FALSE(passive.is_fresh_active(asked("stats.active", mib, 3 * second)));
}

TEST(Passive, says_when_structures_disagree) {
  Passive passive;
  passive.compare(100 * mib, 103 * mib);
  EXPECT_TRUE(passive.caveats().empty());
  passive.compare(100 * mib, 200 * mib);
  ASSERT_EQ(passive.caveats().size(), 1U);
  EXPECT_NE(passive.caveats()[0].find("1 of 2 times"), std::string::npos) << passive.caveats()[0];
}

}  // namespace
}  // namespace jemtrace::collect
