#include "serve/buckets.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <numeric>

namespace jemtrace::serve {
namespace {

ledger::Histogram of(std::initializer_list<uint64_t> latencies_ns) {
  ledger::Histogram histogram;
  for (const uint64_t ns : latencies_ns) {
    histogram.record(ns, 1, 4096);
  }
  return histogram;
}

size_t position(int exponent) {
  return static_cast<size_t>(std::find(classic_exponents.begin(), classic_exponents.end(), exponent) -
                             classic_exponents.begin());
}

TEST(ClassicCounts, a_bound_belongs_to_the_bucket_below) {
  // 2^-10 s is 976562.5 ns.
  const auto counts = classic_counts(of({976'562, 976'563}));
  EXPECT_EQ(counts[position(-10)], 1u);
  EXPECT_EQ(counts[position(-9)], 2u);
  EXPECT_EQ(counts[position(-11)], 0u);
}

TEST(ClassicCounts, one_second_is_within_one_second) {
  const auto counts = classic_counts(of({1'000'000'000, 1'000'000'001}));
  EXPECT_EQ(counts[position(0)], 1u);
  EXPECT_EQ(counts[position(2)], 2u);
}

TEST(ClassicCounts, each_bound_is_a_boundary_of_the_kernel_side) {
  for (size_t i = 0; i < classic_exponents.size(); ++i) {
    const auto bucket = static_cast<unsigned>(classic_exponents[i] - JT_HIST_MIN_EXP) * 8;
    const auto bound_ns = static_cast<uint64_t>(std::floor(std::ldexp(1e9L, classic_exponents[i])));
    EXPECT_EQ(ledger::Histogram::upper_bound_ns(bucket), bound_ns) << classic_exponents[i];
  }
}

TEST(ClassicCounts, what_is_beyond_the_last_bound_is_in_none) {
  EXPECT_EQ(classic_counts(of({17'000'000'000})).back(), 0u);
  EXPECT_EQ(count_of(of({17'000'000'000})), 1u);
}

TEST(NativeSpans, indexes_are_those_of_schema_3) {
  // (0.917 s, 1 s] is bucket 0, (1 s, 1.09 s] bucket 1.
  const auto spans = native_spans(of({1'000'000'000, 1'000'000'001}));
  ASSERT_EQ(spans.size(), 1u);
  EXPECT_EQ(spans[0].first, 0);
  EXPECT_EQ(spans[0].counts, (std::vector<uint64_t>{1, 1}));
}

TEST(NativeSpans, small_gaps_are_filled_and_wide_ones_start_a_new_span) {
  ledger::Histogram histogram;
  for (const unsigned bucket : {10u, 13u, 17u}) {
    histogram.record(ledger::Histogram::upper_bound_ns(bucket), 1, 1);
  }
  const auto spans = native_spans(histogram);
  ASSERT_EQ(spans.size(), 2u);
  EXPECT_EQ(spans[0].counts, (std::vector<uint64_t>{1, 0, 0, 1}));
  EXPECT_EQ(spans[1].first, native_index(17));
}

TEST(NativeSpans, all_up_to_the_zero_threshold_is_left_to_the_zero_bucket) {
  const auto histogram = of({0, 59});  // 2^-24 s is 59.6 ns
  EXPECT_TRUE(native_spans(histogram).empty());
  EXPECT_EQ(histogram.raw().buckets[0], 2u);
  EXPECT_EQ(native_spans(of({60})).at(0).first, native_index(1));
  EXPECT_DOUBLE_EQ(zero_threshold_seconds, std::ldexp(1.0, -24));
}

TEST(NativeRun, holds_every_purge_once) {
  const auto histogram = of({10, 1'000, 50'000, 50'001, 3'000'000, 20'000'000'000});
  const NativeSpan run = native_run(histogram);
  const uint64_t in_run = std::accumulate(run.counts.begin(), run.counts.end(), uint64_t{0});
  EXPECT_EQ(in_run + histogram.raw().buckets[0], 6u);
  EXPECT_EQ(run.first + static_cast<int>(run.counts.size()) - 1, 8 * JT_HIST_MAX_EXP + 1);  // beyond 16 s
}

}  // namespace
}  // namespace jemtrace::serve
