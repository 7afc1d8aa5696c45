#include "collect/images.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace jemtrace::collect {
namespace {

using ::testing::HasSubstr;

TEST(Objection, is_not_raised_against_a_probe_that_agrees) {
  EXPECT_EQ(objection({}), "");
  EXPECT_EQ(objection({.hits = 100, .bad_arguments = 0, .agreed = 90, .disagreed = 0, .unannounced = 0}), "");
}

// Tracing begins in the middle of sweeps, one for each thread at most, and a run may be skipped.
TEST(Objection, is_not_raised_for_what_can_happen_to_a_right_probe) {
  EXPECT_EQ(objection({.hits = 1000, .bad_arguments = 3, .agreed = 900, .disagreed = 5, .unannounced = 700}),
            "");
  EXPECT_EQ(objection({.hits = 1, .bad_arguments = 1, .agreed = 0, .disagreed = 0, .unannounced = 0}), "");
  EXPECT_EQ(objection({.hits = 0, .bad_arguments = 0, .agreed = 0, .disagreed = 0, .unannounced = 8}), "");
}

TEST(Objection, is_raised_against_arguments_that_are_no_cache) {
  EXPECT_THAT(objection({.hits = 10, .bad_arguments = 10, .agreed = 0, .disagreed = 0, .unannounced = 0}),
              HasSubstr("10 of 10 times no argument was a cache"));
}

TEST(Objection, is_raised_when_purges_contradict_the_cache) {
  EXPECT_THAT(objection({.hits = 10, .bad_arguments = 0, .agreed = 3, .disagreed = 2, .unannounced = 0}),
              HasSubstr("2 purges cannot come from the cache that it saw"));
}

TEST(Objection, is_raised_against_a_probe_that_the_purges_do_not_pass) {
  EXPECT_THAT(objection({.hits = 0, .bad_arguments = 0, .agreed = 0, .disagreed = 0, .unannounced = 16}),
              HasSubstr("16 purges came without passing it"));
}

}  // namespace
}  // namespace jemtrace::collect
