#include "ledger/model.hpp"

#include <gtest/gtest.h>

#include <set>
#include <string>

namespace jemtrace::ledger {
namespace {

template <typename Enum>
std::set<std::string> names(int count) {
  std::set<std::string> all;
  for (int i = 0; i < count; ++i) {
    all.insert(name(static_cast<Enum>(i)));
  }
  return all;
}

TEST(Names, are_all_there_and_all_different) {
  EXPECT_EQ(names<jt_transition>(JT_TRANSITIONS).size(), size_t{JT_TRANSITIONS});
  EXPECT_EQ(names<jt_state>(JT_STATES).size(), size_t{JT_STATES});
  EXPECT_EQ(names<jt_payer>(JT_PAYERS).size(), size_t{JT_PAYERS});
  EXPECT_EQ(names<jt_cause>(JT_CAUSES).size(), size_t{JT_CAUSES});
  EXPECT_EQ(names<jt_syscall>(JT_SYSCALLS).size(), size_t{JT_SYSCALLS});
  EXPECT_EQ(names<jt_purpose>(JT_PURPOSES).size(), size_t{JT_PURPOSES});
  EXPECT_EQ(names<jt_loss>(JT_LOSSES).size(), size_t{JT_LOSSES});
}

TEST(Names, belong_to_their_values) {
  EXPECT_STREQ(name(JT_DIRTY_MUZZY), "dirty_muzzy");
  EXPECT_STREQ(name(JT_RETAINED_RETURNED), "retained_returned");
  EXPECT_STREQ(name(JT_UNKNOWN_RETURNED), "unknown_returned");
  EXPECT_STREQ(name(JT_STATE_RETAINED), "retained");
  EXPECT_STREQ(name(JT_PAYER_BACKGROUND), "background");
  EXPECT_STREQ(name(JT_CAUSE_THREAD_EXIT), "thread_exit");
  EXPECT_STREQ(name(JT_SYS_PROCESS_MADVISE), "process_madvise");
  EXPECT_STREQ(name(JT_PURGE_SWEEP), "sweep");
  EXPECT_STREQ(name(JT_ZERO_FILL), "zero_fill");
  EXPECT_STREQ(name(JT_THREAD_STACK), "thread_stack");
  EXPECT_STREQ(name(JT_PURGE_UNPROVEN), "unproven");
  EXPECT_STREQ(name(JT_LOSS_RING), "ring_events");
  EXPECT_STREQ(name(JT_LOSS_TARGET_FULL), "target_full");
}

TEST(Names, are_unknown_beyond_the_known_values) {
  EXPECT_STREQ(name(static_cast<jt_cause>(15)), "unknown");
  EXPECT_STREQ(name(static_cast<jt_transition>(JT_TRANSITIONS)), "unknown");
}

TEST(Totals, without_sources_keep_what_the_advice_says) {
  Totals totals;
  totals.transitions[JT_DIRTY_MUZZY].by_payer[JT_PAYER_APP].record(1'000, 3, 3 * 4096);
  totals.transitions[JT_DIRTY_RETAINED].by_payer[JT_PAYER_APP].record(1'000, 1, 4096);
  totals.transitions[JT_MUZZY_RETAINED].by_payer[JT_PAYER_BACKGROUND].record(2'000, 2, 8192);
  totals.transitions[JT_MUZZY_RETURNED].by_payer[JT_PAYER_APP].record(3'000, 1, 4096);
  totals.counters.decay[JT_STATE_DIRTY] = {.npurge = 2, .nmadvise = 4, .purged = 4};
  totals.counters.decay[JT_STATE_MUZZY] = {.npurge = 1, .nmadvise = 3, .purged = 3};
  totals.forget_sources();

  EXPECT_EQ(totals.transitions[JT_DIRTY_MUZZY].total().extents(), 3u);
  EXPECT_EQ(totals.transitions[JT_DIRTY_RETAINED].total().extents(), 0u);
  EXPECT_EQ(totals.transitions[JT_MUZZY_RETAINED].total().extents(), 0u);
  EXPECT_EQ(totals.transitions[JT_MUZZY_RETURNED].total().extents(), 0u);
  EXPECT_EQ(totals.transitions[JT_UNKNOWN_RETAINED].total().bytes(), 3u * 4096);
  EXPECT_EQ(totals.transitions[JT_UNKNOWN_RETAINED].by_payer[JT_PAYER_BACKGROUND].extents(), 2u);
  EXPECT_EQ(totals.transitions[JT_UNKNOWN_RETURNED].total().extents(), 1u);
  EXPECT_EQ(totals.counters.decay[JT_STATE_DIRTY].nmadvise, 3u);
  EXPECT_EQ(totals.counters.decay[JT_STATE_MUZZY].nmadvise, 0u);
  EXPECT_EQ(totals.counters.decay[JT_STATE_UNKNOWN].nmadvise, 4u);
  EXPECT_EQ(totals.counters.decay[JT_STATE_UNKNOWN].purged, 4u);
}

constexpr uint64_t minute_ns = 60'000'000'000;

TEST(Refaults, add_up_from_short_times_to_long_ones) {
  jt_refaults counted{};
  counted.followed_pages[JT_STATE_DIRTY] = 2000;
  counted.touched_pages[JT_STATE_DIRTY][JT_REFAULT_1S] = 10;
  counted.touched_pages[JT_STATE_DIRTY][JT_REFAULT_10S] = 20;
  counted.touched_pages[JT_STATE_UNKNOWN][JT_REFAULT_60S] = 30;
  counted.touched_pages[JT_STATE_DIRTY][JT_REFAULT_LATER] = 1000;
  const Refaults all = refaults(counted, {}, minute_ns, true);
  EXPECT_EQ(all.within_1s.pages, 10u);
  EXPECT_EQ(all.within_10s.pages, 30u);
  EXPECT_EQ(all.within_60s.pages, 60u);
  EXPECT_EQ(all.touched_from[JT_STATE_UNKNOWN], 30u);
}

TEST(Refaults, count_a_huge_page_in_full_only_where_there_may_be_one) {
  jt_refaults counted{};
  counted.touched_pages[JT_STATE_DIRTY][JT_REFAULT_1S] = 1;
  counted.maybe_huge[JT_REFAULT_1S] = 1;
  Waiting waiting;
  waiting.maybe_huge[JT_REFAULT_10S] = 1;
  EXPECT_EQ(refaults(counted, waiting, minute_ns, true).within_1s.most_pages, 512u);
  EXPECT_EQ(refaults(counted, waiting, minute_ns, true).within_10s.most_pages, 1023u);
  EXPECT_EQ(refaults(counted, waiting, minute_ns, false).within_10s.most_pages, 1u);
}

TEST(Refaults, have_no_share_when_no_page_has_had_the_time) {
  jt_refaults counted{};
  counted.followed_pages[JT_STATE_MUZZY] = 100;
  Waiting waiting;
  waiting.pages = {50, 100, 100};
  const Refaults all = refaults(counted, waiting, minute_ns, false);
  EXPECT_EQ(all.share(all.within_1s), 0.0);
  EXPECT_FALSE(all.share(all.within_10s).has_value());
}

TEST(Refaults, share_is_not_taken_up_by_a_short_trace) {
  // 100 pages purged early, all touched within 10 s; 100 000 purged 2 s before the end, none touched yet.
  jt_refaults counted{};
  counted.followed_pages[JT_STATE_DIRTY] = 100'100;
  counted.touched_pages[JT_STATE_DIRTY][JT_REFAULT_10S] = 100;
  Waiting waiting;
  waiting.pages = {0, 40'000, 40'000};
  const Refaults all = refaults(counted, waiting, minute_ns, false);
  EXPECT_NEAR(all.share(all.within_10s).value_or(1), 100.0 / (100'100 - 20'000), 1e-9);
  EXPECT_NEAR(all.least_share(all.within_10s).value_or(1), 100.0 / 100'100, 1e-9);
  waiting.pages = {0, 100'000, 100'000};
  const Refaults late = refaults(counted, waiting, minute_ns, false);
  EXPECT_FALSE(late.share(late.within_10s).has_value());
}

TEST(Refaults, have_no_share_for_longer_than_was_watched) {
  jt_refaults counted{};
  counted.followed_pages[JT_STATE_DIRTY] = 100;
  counted.touched_pages[JT_STATE_DIRTY][JT_REFAULT_1S] = 57;
  Waiting waiting;
  waiting.pages = {0, 43, 43};
  const Refaults some = refaults(counted, waiting, 9'000'000'000, false);
  EXPECT_EQ(some.share(some.within_1s), 0.57);
  EXPECT_FALSE(some.share(some.within_10s).has_value());
  EXPECT_FALSE(some.most_share(some.within_10s).has_value());
  EXPECT_EQ(some.least_share(some.within_10s), 0.57);
  // Nobody is left to touch them: then it is known.
  const Refaults ended = refaults(counted, {}, 9'000'000'000, false);
  EXPECT_EQ(ended.share(ended.within_60s), 0.57);
}

TEST(TransitionTotals, add_up_over_payers) {
  TransitionTotals totals;
  totals.by_payer[JT_PAYER_APP].record(1'000, 1, 4096);
  totals.by_payer[JT_PAYER_BACKGROUND].record(9'000, 2, 8192);
  EXPECT_EQ(totals.total().count(), 2u);
  EXPECT_EQ(totals.total().extents(), 3u);
  EXPECT_EQ(totals.total().bytes(), 12'288u);
  EXPECT_EQ(totals.total().min_ns(), 1'000u);
  EXPECT_EQ(totals.total().max_ns(), 9'000u);
}

}  // namespace
}  // namespace jemtrace::ledger
