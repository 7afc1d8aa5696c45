#include "ledger/reading.hpp"

#include <gtest/gtest.h>

#include <limits>
#include <set>
#include <string>

namespace jemtrace::ledger {
namespace {

constexpr uint64_t page = 4096;

ArenaReading arena(uint64_t active, uint64_t dirty) {
  ArenaReading one;
  one.active_pages = active;
  one.dirty.pages = dirty;
  return one;
}

TEST(Reading, totals_are_sums_over_arenas_in_bytes) {
  Reading reading;
  reading.arenas = {arena(10, 1), arena(5, 0)};
  reading.arenas[0].base_bytes = 100;
  reading.arenas[1].base_bytes = 11;
  const auto total = reading.total(page);
  EXPECT_EQ(total.active, 15 * page);
  EXPECT_EQ(total.dirty, page);
  EXPECT_EQ(total.base, 111U);
}

TEST(Reading, a_total_is_unknown_when_one_arena_is) {
  Reading reading;
  reading.arenas = {arena(10, 1), arena(5, 2)};
  reading.arenas[1].dirty.pages.reset();
  EXPECT_FALSE(reading.total(page).dirty);
  EXPECT_TRUE(reading.total(page).active);
  EXPECT_FALSE(reading.total(page).muzzy);
}

TEST(Reading, a_total_of_nothing_is_unknown) {
  EXPECT_FALSE(Reading().total(page).active);
}

TEST(Reading, a_total_that_overflows_is_unknown) {
  Reading reading;
  reading.arenas = {arena(std::numeric_limits<uint64_t>::max() / 2, 1)};
  EXPECT_FALSE(reading.total(page).active);
}

TEST(Reading, names_of_methods_differ) {
  std::set<std::string> names;
  for (const Method method : {Method::structures, Method::passive, Method::call, Method::configuration}) {
    names.insert(name(method));
  }
  EXPECT_EQ(names.size(), 4U);
}

TEST(CompleteFrom, takes_what_is_unknown_and_nothing_else) {
  Reading structures;
  structures.arenas.resize(2);
  structures.arenas[0].active_pages = 5;
  structures.arenas[1].index = 1;
  Reading called;
  called.method = Method::call;
  called.arenas.resize(2);
  called.arenas[0].active_pages = 6;
  called.arenas[0].allocated_bytes = 7;
  called.arenas[1].index = 2;
  called.arenas[1].allocated_bytes = 8;
  structures.complete_from(called);
  EXPECT_EQ(structures.arenas[0].active_pages, 5u);
  EXPECT_EQ(structures.arenas[0].allocated_bytes, 7u);
  EXPECT_FALSE(structures.arenas[1].allocated_bytes);
  EXPECT_EQ(structures.completed_by, Method::call);
}

TEST(CompleteFrom, leaves_arenas_of_two_jemallocs_with_one_index_alone) {
  Reading structures;
  structures.arenas.resize(2);
  Reading called;
  called.arenas.resize(1);
  called.arenas[0].allocated_bytes = 7;
  structures.complete_from(called);
  EXPECT_FALSE(structures.arenas[0].allocated_bytes || structures.arenas[1].allocated_bytes);
}

}  // namespace
}  // namespace jemtrace::ledger
