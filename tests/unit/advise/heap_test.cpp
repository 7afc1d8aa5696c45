#include "advise/heap.hpp"

#include <gtest/gtest.h>

#include <cstdlib>
#include <vector>

#include "advise/decay.hpp"

namespace jemtrace::advise {
namespace {

/// Blocks of `pages` side by side, from the beginning of a mapping of 512 pages.
std::vector<Heap::Id> row(Heap& heap, std::initializer_list<uint64_t> pages) {
  std::vector<Heap::Id> ids;
  for (const uint64_t one : pages) {
    ids.push_back(heap.take(one));
  }
  return ids;
}

TEST(Heap, takes_what_is_dirty_before_new_memory) {
  Heap heap;
  heap.give(heap.take(10));
  EXPECT_EQ(heap.pages(Heap::dirty), 10U);
  heap.take(6);
  EXPECT_EQ(heap.pages(Heap::active), 6U);
  EXPECT_EQ(heap.pages(Heap::dirty), 4U) << "cut in two";
}

TEST(Heap, misses_where_no_extent_is_large_enough) {
  Heap heap;
  const auto blocks = row(heap, {9, 9, 9, 9});
  heap.give(blocks[0]);
  heap.give(blocks[2]);
  heap.take(11);
  EXPECT_EQ(heap.pages(Heap::dirty), 18U);
}

TEST(Heap, joins_neighbours_that_are_freed) {
  Heap heap;
  const auto blocks = row(heap, {9, 9, 9, 9});
  heap.give(blocks[0]);
  heap.give(blocks[2]);
  heap.give(blocks[1]);
  heap.take(25);
  EXPECT_EQ(heap.pages(Heap::dirty), 2U);
}

TEST(Heap, joins_small_ones_only_when_they_are_evicted) {
  Heap heap;
  const auto blocks = row(heap, {2, 2, 9});
  heap.give(blocks[0]);
  heap.give(blocks[1]);
  heap.take(4);
  EXPECT_EQ(heap.pages(Heap::dirty), 4U);
  EXPECT_EQ(heap.evict(Heap::dirty, 3, false), 4U) << "as one";
}

TEST(Heap, finds_only_in_bins_whose_extents_are_all_large_enough) {
  Heap heap;
  const auto blocks = row(heap, {10, 9});
  heap.give(blocks[0]);
  heap.take(10);
  EXPECT_EQ(heap.pages(Heap::dirty), 10U) << "10 pages are in the bin for 9 and 10";
  heap.take(9);
  EXPECT_EQ(heap.pages(Heap::dirty), 1U);
}

TEST(Heap, does_not_cut_a_small_block_out_of_a_large_dirty_extent) {
  Heap heap;
  heap.give(heap.take(449));
  heap.take(5);
  EXPECT_EQ(heap.pages(Heap::dirty), 449U);
  heap.take(41);
  EXPECT_EQ(heap.pages(Heap::dirty), 408U);
}

TEST(Heap, evicts_the_oldest_whole_extents) {
  Heap heap;
  const auto blocks = row(heap, {9, 5, 11, 5, 13, 5});
  heap.give(blocks[2]);
  heap.give(blocks[0]);
  heap.give(blocks[4]);
  EXPECT_EQ(heap.evict(Heap::dirty, 23, false), 11U);
  EXPECT_EQ(heap.evict(Heap::dirty, 21, false), 9U);
  EXPECT_EQ(heap.pages(Heap::dirty), 13U);
}

TEST(Heap, purged_pages_return_once) {
  Heap heap;
  const Heap::Id block = heap.take(20);
  EXPECT_EQ(heap.returned(), 0U) << "new memory";
  heap.give(block);
  heap.evict(Heap::dirty, 0, false);
  heap.give(heap.take(30));
  EXPECT_EQ(heap.returned(), 20U) << "of which 10 are new";
  heap.take(30);
  EXPECT_EQ(heap.returned(), 20U);
}

TEST(Heap, what_was_forgotten_does_not_return) {
  Heap heap;
  heap.give(heap.take(20));
  heap.evict(Heap::dirty, 0, false);
  heap.forget_purges();
  heap.take(20);
  EXPECT_EQ(heap.returned(), 0U);
}

TEST(Heap, muzzy_pages_are_joined_and_taken_without_a_return) {
  Heap heap;
  const auto blocks = row(heap, {9, 9, 9});
  heap.give(blocks[0]);
  heap.evict(Heap::dirty, 0, true);
  heap.give(blocks[1]);
  heap.evict(Heap::dirty, 0, true);
  EXPECT_EQ(heap.pages(Heap::muzzy), 18U);
  heap.take(17);
  EXPECT_EQ(heap.reused(), 17U);
  EXPECT_EQ(heap.returned(), 0U);
  EXPECT_EQ(heap.evict(Heap::muzzy, 0, false), 1U);
}

TEST(Heap, purges_oversize_extents_at_once) {
  Heap heap(100);
  const auto blocks = row(heap, {60, 60, 60});
  EXPECT_EQ(heap.give(blocks[0]), 0U);
  EXPECT_EQ(heap.give(blocks[1]), 120U) << "as they have grown together";
  EXPECT_EQ(heap.pages(Heap::dirty), 0U);
}

TEST(Heap, loses_no_page) {
  Heap heap(400);
  Random random(1);
  std::vector<Heap::Id> live;
  uint64_t active = 0;
  for (int i = 0; i < 20'000; ++i) {
    if (random.below(2) == 0 || live.empty()) {
      const uint64_t pages = 1 + random.below(90);
      live.push_back(heap.take(pages));
      ASSERT_EQ(heap.pages_of(live.back()), pages);
      active += pages;
    } else {
      std::swap(live[random.below(live.size())], live.back());
      active -= heap.pages_of(live.back());
      heap.give(live.back());
      live.pop_back();
    }
    if (i % 50 == 0) {
      const uint64_t limit = heap.pages(Heap::dirty) / 2;
      heap.evict(Heap::dirty, limit, i % 100 == 0);
      heap.evict(Heap::muzzy, limit / 2, false);
      ASSERT_LE(heap.pages(Heap::dirty), limit);
    }
    ASSERT_EQ(heap.pages(Heap::active), active);
  }
  for (const Heap::Id one : live) {
    heap.give(one);
  }
  heap.evict(Heap::dirty, 0, false);
  heap.evict(Heap::muzzy, 0, false);
  EXPECT_EQ(heap.pages(Heap::active) + heap.pages(Heap::dirty) + heap.pages(Heap::muzzy), 0U);
  EXPECT_GT(heap.pages(Heap::retained), 0U);
}

}  // namespace
}  // namespace jemtrace::advise
