#include "util/parallel.hpp"

#include <gtest/gtest.h>

#include <atomic>
#include <vector>

namespace jemtrace {
namespace {

TEST(InParallel, does_each_piece_of_work_once) {
  for (const size_t threads : {size_t{0}, size_t{1}, size_t{3}, size_t{64}}) {
    std::vector<std::atomic<int>> done(50);
    in_parallel(done.size(), threads, [&](size_t i) { done[i] += 1; });
    for (const auto& times : done) {
      EXPECT_EQ(times, 1) << threads << " threads";
    }
  }
}

TEST(InParallel, does_nothing_when_there_is_none) {
  in_parallel(0, 8, [](size_t) { FAIL(); });
}

}  // namespace
}  // namespace jemtrace
