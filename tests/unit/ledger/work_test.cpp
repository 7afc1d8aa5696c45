#include "ledger/work.hpp"

#include <gtest/gtest.h>

namespace jemtrace::ledger {
namespace {

constexpr uint32_t tgid = 100;

jt_work_key key_of(jt_transition transition, jt_purpose purpose = JT_PURGE_SWEEP, uint32_t who = 101,
                   jt_payer payer = JT_PAYER_APP) {
  return {.born_ns = 5,
          .who = who,
          .transition = static_cast<uint8_t>(transition),
          .payer = static_cast<uint8_t>(payer),
          .purpose = static_cast<uint8_t>(purpose),
          .pad = 0};
}

/// `calls` of an extent of two pages, of 600 ns each.
jt_work work_of(uint64_t calls, const char* comm = "worker") {
  jt_work work{};
  work.done.extents = work.done.count = calls;
  work.done.bytes = calls * 8192;
  work.done.sum_ns = calls * 600;
  work.done.min_ns = work.done.max_ns = 600;
  work.done.buckets[Histogram::bucket_of(600)] = calls;
  work.sweeps[JT_CAUSE_TICK] = calls;
  std::snprintf(work.comm, sizeof work.comm, "%s", comm);
  return work;
}

TEST(Work, is_counted_as_jemalloc_counts_it) {
  Totals totals;
  add(totals, key_of(JT_DIRTY_RETAINED), work_of(3));
  add(totals, key_of(JT_MUZZY_RETURNED), work_of(2));
  const jt_counters& c = totals.counters;
  EXPECT_EQ(c.decay[JT_STATE_DIRTY].npurge, 3u);
  EXPECT_EQ(c.decay[JT_STATE_DIRTY].nmadvise, 3u);
  EXPECT_EQ(c.decay[JT_STATE_DIRTY].purged, 6u);
  EXPECT_EQ(c.decay[JT_STATE_MUZZY].nmadvise, 2u);
  EXPECT_EQ(c.decay[JT_STATE_UNKNOWN].nmadvise, 0u);
  EXPECT_EQ(c.sweeps[JT_STATE_MUZZY][JT_CAUSE_TICK], 2u);
  EXPECT_EQ(c.by_purpose[JT_PURGE_SWEEP].calls, 5u);
  EXPECT_EQ(c.by_purpose[JT_PURGE_SWEEP].bytes, 5u * 8192);
  EXPECT_EQ(c.by_purpose[JT_PURGE_SWEEP].total_ns, 5u * 600);
  EXPECT_EQ(calls(c), 5u);
  EXPECT_EQ(totals.transitions[JT_DIRTY_RETAINED].by_payer[JT_PAYER_APP].count(), 3u);
  EXPECT_EQ(totals.transitions[JT_MUZZY_RETURNED].total().bytes(), 2u * 8192);
}

TEST(Work, that_failed_is_counted_once_by_jemalloc_and_done_by_nobody) {
  jt_work work = work_of(4);
  work.failed = 2;  // one of them was done again and succeeded: it is among the four
  work.failed_extents = 2;
  work.failed_bytes = 2 * 8192;
  work.failed_ns = 100;
  work.again_extents = 1;
  work.again_bytes = 8192;
  Totals totals;
  add(totals, key_of(JT_DIRTY_MUZZY), work);
  EXPECT_EQ(totals.counters.decay[JT_STATE_DIRTY].nmadvise, 5u);
  EXPECT_EQ(totals.counters.decay[JT_STATE_DIRTY].purged, 10u);
  EXPECT_EQ(totals.counters.by_purpose[JT_PURGE_SWEEP].calls, 6u);
  EXPECT_EQ(totals.counters.by_purpose[JT_PURGE_SWEEP].failed, 2u);
  EXPECT_EQ(totals.counters.by_purpose[JT_PURGE_SWEEP].total_ns, 4u * 600 + 100);
  EXPECT_EQ(totals.transitions[JT_DIRTY_MUZZY].total().extents(), 4u);
}

TEST(Work, beyond_decay_is_told_apart) {
  Totals totals;
  add(totals, key_of(JT_DIRTY_RETURNED, JT_PURGE_OVERSIZE), work_of(2));
  add(totals, key_of(JT_RETAINED_RETURNED, JT_DESTROY), work_of(7));
  EXPECT_EQ(totals.counters.oversize_extents, 2u);
  EXPECT_EQ(totals.counters.decay[JT_STATE_DIRTY].nmadvise, 2u);
  EXPECT_EQ(totals.counters.decay[JT_STATE_RETAINED].nmadvise, 0u);
  EXPECT_EQ(totals.counters.by_purpose[JT_DESTROY].calls, 7u);
  EXPECT_EQ(totals.transitions[JT_RETAINED_RETURNED].total().extents(), 7u);
}

TEST(Work, that_takes_pages_is_followed_once_faults_are_seen) {
  jt_work early = work_of(5);
  early.early_pages = 4;
  jt_counters counters{};
  add(counters, key_of(JT_DIRTY_RETAINED), early);
  add(counters, key_of(JT_MUZZY_RETAINED), work_of(1));
  add(counters, key_of(JT_DIRTY_MUZZY), work_of(7));
  add(counters, key_of(JT_DIRTY_RETURNED), work_of(9));
  EXPECT_EQ(counters.refaults.followed_pages[JT_STATE_DIRTY], 10u - 4);
  EXPECT_EQ(counters.refaults.followed_pages[JT_STATE_MUZZY], 2u);
  jt_work half_read = work_of(1);
  half_read.early_pages = 3;  // a call more than the bytes have
  add(counters, key_of(JT_MUZZY_RETAINED), half_read);
  EXPECT_EQ(counters.refaults.followed_pages[JT_STATE_MUZZY], 2u);
}

TEST(Work, says_what_rss_lost_where_that_was_read) {
  jt_work work = work_of(2);
  work.unread_rss = 2;
  jt_counters counters{};
  add(counters, key_of(JT_DIRTY_RETAINED), work);
  add(counters, key_of(JT_RETAINED_RETURNED, JT_DESTROY), work_of(3));
  EXPECT_EQ(counters.has_rss_delta, 0u);
  work.failed = 1;
  work.rss_delta_bytes = -4096;
  add(counters, key_of(JT_DIRTY_RETAINED), work);
  EXPECT_EQ(counters.has_rss_delta, 1u);
  EXPECT_EQ(counters.rss_delta_bytes, -4096);
}

TEST(Work, of_which_only_an_end_was_seen_has_no_latency) {
  jt_work work = work_of(1);
  work.untimed = 2;
  work.done.extents += 2;
  work.done.bytes += 2 * 8192;
  Totals totals;
  add(totals, key_of(JT_UNKNOWN_RETAINED, JT_PURGE_UNPROVEN), work);
  EXPECT_EQ(totals.counters.by_purpose[JT_PURGE_UNPROVEN].calls, 3u);
  EXPECT_EQ(totals.counters.decay[JT_STATE_UNKNOWN].nmadvise, 3u);
  EXPECT_EQ(totals.transitions[JT_UNKNOWN_RETAINED].total().count(), 1u);
}

TEST(Payers, are_threads_with_all_that_they_did) {
  Payers payers;
  payers.add(key_of(JT_DIRTY_MUZZY), work_of(1));
  payers.add(key_of(JT_MUZZY_RETAINED), work_of(2));
  payers.add(key_of(JT_DIRTY_MUZZY, JT_PURGE_SWEEP, 102, JT_PAYER_BACKGROUND), work_of(5, "jemalloc_bg_thd"));
  const std::vector<ThreadWork> sorted = payers.sorted();
  ASSERT_EQ(sorted.size(), 2u);
  EXPECT_EQ(sorted[0].tid, 102);
  EXPECT_EQ(sorted[0].payer, JT_PAYER_BACKGROUND);
  EXPECT_EQ(sorted[1].comm, "worker");
  EXPECT_EQ(sorted[1].calls, 3u);
  EXPECT_EQ(sorted[1].latency_ns, 3u * 600);
  EXPECT_EQ(sorted[1].bytes, 3u * 8192);
}

TEST(Payers, that_share_a_place_are_one_without_a_tid) {
  Payers payers;
  payers.add(key_of(JT_DIRTY_MUZZY, JT_PURGE_SWEEP, JT_SHARED_WORK | tgid), work_of(1, ""));
  const std::vector<ThreadWork> sorted = payers.sorted();
  ASSERT_EQ(sorted.size(), 1u);
  EXPECT_EQ(sorted[0].tid, 0);
  EXPECT_EQ(sorted[0].comm, "(other threads)");
}

}  // namespace
}  // namespace jemtrace::ledger
