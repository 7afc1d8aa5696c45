#include "ledger/account.hpp"

#include <gtest/gtest.h>

#include <numeric>

namespace jemtrace::ledger {
namespace {

constexpr uint64_t mib = uint64_t{1} << 20;
constexpr uint64_t base = 0x7f0000000000;

uint64_t pages(uint64_t mebibytes) {
  return mebibytes * mib / 4096;
}

Vma vma(Vma::Kind kind, uint64_t start, uint64_t size_mib, uint64_t rss_mib) {
  Vma v;
  v.kind = kind;
  v.start = start;
  v.end = start + size_mib * mib;
  v.rss_bytes = v.anonymous_bytes = rss_mib * mib;
  return v;
}

CacheReading cache(uint64_t start, uint64_t mebibytes) {
  CacheReading c;
  c.pages = pages(mebibytes);
  c.ranges = std::vector<Range>{{start, mebibytes * mib}};
  return c;
}

Residency resident(uint64_t mebibytes, uint64_t lazily = 0) {
  Residency r;
  r.present_bytes = mebibytes * mib;
  r.freed_lazily_bytes = lazily * mib;
  return r;
}

/// 900 MB active in a heap of 1600 MB: 100 dirty, 200 muzzy (150 of it resident), 390 retained (20 of it
/// resident), 10 of metadata; beside it a heap of libc, a stack and files.
Observation typical() {
  Observation seen;
  Vma heap = vma(Vma::Kind::anonymous, base, 1600, 1180);
  heap.lazyfree_bytes = 140 * mib;
  seen.vmas = {vma(Vma::Kind::file, 0x400000, 40, 30), vma(Vma::Kind::heap, 0x10000000, 10, 5), heap,
               vma(Vma::Kind::stack, 0x7ffc00000000, 8, 1)};
  seen.rss_before_bytes = seen.rss_after_bytes = (30 + 5 + 1180 + 1) * mib;
  Reading reading;
  ArenaReading arena;
  arena.active_pages = pages(900);
  arena.dirty = cache(base, 100);
  arena.muzzy = cache(base + 100 * mib, 200);
  arena.retained = cache(base + 300 * mib, 390);
  arena.metadata = std::vector<Range>{{base + 690 * mib, 10 * mib}};
  arena.base_bytes = 10 * mib;
  reading.arenas = {arena};
  seen.before = seen.after = reading;
  ArenaResidency where;
  where.dirty = resident(100);
  where.muzzy = resident(150, 145);
  where.retained = resident(20);
  where.metadata = resident(10);
  seen.residency = {where};
  return seen;
}

int64_t sum(const Account& account) {
  return std::accumulate(
      account.resident.begin(), account.resident.end(), int64_t{0},
      [](int64_t n, const auto& part) { return n + static_cast<int64_t>(part.value_or(0)); });
}

TEST(Account, lays_rss_out_by_state) {
  const Account account = make_account(typical());
  EXPECT_EQ(account.rss_bytes, 1216 * mib);
  EXPECT_EQ(account.part(Part::active), 900 * mib);
  EXPECT_EQ(account.part(Part::dirty), 100 * mib);
  EXPECT_EQ(account.part(Part::lazyfree), 140 * mib);
  EXPECT_EQ(account.part(Part::redirtied), 10 * mib);
  EXPECT_EQ(account.part(Part::retained), 20 * mib);
  EXPECT_EQ(account.part(Part::metadata), 10 * mib);
  EXPECT_EQ(account.part(Part::other_heap), 5 * mib);
  EXPECT_EQ(account.part(Part::stacks), 1 * mib);
  EXPECT_EQ(account.part(Part::files), 30 * mib);
  EXPECT_EQ(account.unexplained_bytes, 0);
  EXPECT_EQ(account.bound_bytes, 0u);
  EXPECT_EQ(account.uncertain_bytes, 0u);
  EXPECT_EQ(account.muzzy_not_resident_bytes, 50 * mib);
  EXPECT_EQ(account.dirty.bytes, 100 * mib);
  EXPECT_TRUE(account.notes.empty());
}

TEST(Account, active_memory_that_was_never_touched_is_not_resident) {
  Observation seen = typical();
  seen.before->arenas[0].active_pages = pages(5000);
  seen.after = seen.before;
  const Account account = make_account(seen);
  EXPECT_EQ(account.part(Part::active), 900 * mib);
  EXPECT_EQ(account.active.bytes, 5000 * mib);
  EXPECT_EQ(account.unexplained_bytes, 0);
}

TEST(Account, memory_beyond_what_is_active_is_not_jemallocs) {
  Observation seen = typical();
  seen.before->arenas[0].active_pages = pages(700);
  seen.after = seen.before;
  const Account account = make_account(seen);
  EXPECT_EQ(account.part(Part::active), 700 * mib);
  EXPECT_EQ(account.part(Part::other_heap), 205 * mib);
}

TEST(Account, a_mapping_that_nothing_tells_about_is_uncertain) {
  Observation seen = typical();
  seen.vmas.push_back(vma(Vma::Kind::anonymous, base + 8000 * mib, 64, 50));
  seen.before->arenas[0].active_pages = pages(930);
  seen.after = seen.before;
  const Account account = make_account(seen);
  EXPECT_EQ(account.part(Part::active), 930 * mib);
  EXPECT_EQ(account.part(Part::other_heap), 25 * mib);
  EXPECT_EQ(account.uncertain_bytes, 30 * mib);
}

TEST(Account, what_moved_while_reading_is_the_bound) {
  Observation seen = typical();
  seen.rss_after_bytes += 7 * mib;
  seen.after->arenas[0].dirty.pages = pages(97);
  seen.rss_lag_bytes = 2 * mib;
  const Account account = make_account(seen);
  EXPECT_EQ(account.bound_bytes, 12 * mib);
  EXPECT_EQ(account.unexplained_bytes, static_cast<int64_t>(7 * mib));
}

// RSS before and after may be alike when a target takes memory and gives it back between them.
TEST(Account, what_came_and_went_between_is_in_the_bound) {
  Observation seen = typical();
  seen.vmas.push_back(vma(Vma::Kind::anonymous, base + 8000 * mib, 64, 40));
  const Account account = make_account(seen);
  EXPECT_EQ(account.unexplained_bytes, -static_cast<int64_t>(40 * mib));
  EXPECT_EQ(account.bound_bytes, 40 * mib);
}

TEST(Account, read_only_once_the_bound_says_that_it_is_incomplete) {
  Observation seen = typical();
  seen.after.reset();
  EXPECT_EQ(make_account(seen).notes.size(), 1u);
}

TEST(Account, without_ranges_it_is_an_estimate_and_says_so) {
  Observation seen = typical();
  ArenaReading& arena = seen.before->arenas[0];
  arena.dirty.ranges = arena.muzzy.ranges = arena.retained.ranges = arena.metadata = std::nullopt;
  seen.after = seen.before;
  seen.residency = {ArenaResidency{}};
  const Account account = make_account(seen);
  EXPECT_EQ(account.part(Part::dirty), 100 * mib);
  EXPECT_EQ(account.part(Part::lazyfree), 140 * mib);
  EXPECT_EQ(account.part(Part::metadata), 10 * mib);
  EXPECT_EQ(account.part(Part::active), 900 * mib);
  EXPECT_EQ(account.unexplained_bytes, 0);
  EXPECT_GE(account.uncertain_bytes, 250 * mib);
  EXPECT_FALSE(account.dirty.resident_bytes);
  EXPECT_FALSE(account.muzzy_not_resident_bytes);
  EXPECT_EQ(account.notes.size(), 4u);
}

// What jemalloc has of metadata need not be resident.
TEST(Account, an_estimate_that_is_more_than_there_is_widens_the_bound) {
  Observation seen = typical();
  ArenaReading& arena = seen.before->arenas[0];
  arena.dirty.ranges = arena.muzzy.ranges = arena.retained.ranges = arena.metadata = std::nullopt;
  arena.base_bytes = 2000 * mib;
  seen.after = seen.before;
  seen.residency = {ArenaResidency{}};
  const Account account = make_account(seen);
  EXPECT_EQ(account.unexplained_bytes, -static_cast<int64_t>((2000 + 100 + 140 - 1180) * mib));
  EXPECT_EQ(account.bound_bytes, (2000 + 100 + 140 - 1180) * mib);
}

TEST(Account, without_a_reading_only_the_kernels_side_is_known) {
  Observation seen = typical();
  seen.before = seen.after = std::nullopt;
  seen.residency.clear();
  const Account account = make_account(seen);
  EXPECT_EQ(account.part(Part::active), std::nullopt);
  EXPECT_EQ(account.part(Part::other_heap), 1185 * mib);
  EXPECT_EQ(account.lazyfree_bytes, 140 * mib);
  EXPECT_EQ(sum(account), static_cast<int64_t>(account.rss_bytes));
  EXPECT_EQ(account.notes.size(), 1u);
}

TEST(Account, always_adds_up) {
  for (const uint64_t active : {0u, 1u, 500u, 900u, 5000u}) {
    for (const uint64_t dirty : {0u, 100u, 2000u}) {
      Observation seen = typical();
      seen.before->arenas[0].active_pages = pages(active);
      seen.residency[0].dirty = resident(dirty);
      const Account account = make_account(seen);
      EXPECT_EQ(sum(account) + account.unexplained_bytes, static_cast<int64_t>(account.rss_bytes));
      EXPECT_LE(std::abs(account.unexplained_bytes), static_cast<int64_t>(account.bound_bytes));
    }
  }
}

}  // namespace
}  // namespace jemtrace::ledger
