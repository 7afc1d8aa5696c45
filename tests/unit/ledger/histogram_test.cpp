#include "ledger/histogram.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <vector>

#include "jemtrace/bucket.h"

namespace jemtrace::ledger {
namespace {

/// An unsigned number of 576 bits, enough for the eighth power of a bound.
class Wide {
 public:
  explicit Wide(uint64_t value) { words_[0] = static_cast<uint32_t>(value), words_[1] = value >> 32; }
  void multiply(uint64_t factor) {
    const Wide copy = *this;
    words_.fill(0);
    add_product(copy, static_cast<uint32_t>(factor), 0);
    add_product(copy, static_cast<uint32_t>(factor >> 32), 1);
  }
  bool operator<=(const Wide& other) const {
    return !std::lexicographical_compare(other.words_.rbegin(), other.words_.rend(), words_.rbegin(),
                                         words_.rend());
  }

 private:
  void add_product(const Wide& a, uint32_t factor, size_t shift) {
    uint64_t carry = 0;
    for (size_t i = 0; i + shift < words_.size(); ++i) {
      carry += uint64_t{a.words_[i]} * factor + words_[i + shift];
      words_[i + shift] = static_cast<uint32_t>(carry);
      carry >>= 32;
    }
  }
  std::array<uint32_t, 18> words_{};
};

Wide power(uint64_t base, unsigned exponent) {
  Wide result(1);
  for (unsigned i = 0; i < exponent; ++i) {
    result.multiply(base);
  }
  return result;
}

/// ns <= 2^(i/8 - 24) * 1e9, exactly: both sides to the eighth power, times 2^192.
bool within_bound(uint64_t ns, unsigned i) {
  Wide left = power(ns, 8);
  for (unsigned n = 0; n < 192; ++n) {
    left.multiply(2);
  }
  Wide right = power(1'000'000'000, 8);
  for (unsigned n = 0; n < i; ++n) {
    right.multiply(2);
  }
  return left <= right;
}

TEST(HistogramBounds, are_the_floor_of_the_exact_power_of_two) {
  for (unsigned i = 0; i < JT_HIST_FINITE; ++i) {
    const uint64_t bound = Histogram::upper_bound_ns(i);
    EXPECT_TRUE(within_bound(bound, i)) << "bucket " << i;
    EXPECT_FALSE(within_bound(bound + 1, i)) << "bucket " << i;
  }
}

TEST(HistogramBounds, end_at_known_values) {
  EXPECT_EQ(Histogram::upper_bound_ns(0), 59u);  // 2^-24 s is 59.6 ns
  EXPECT_EQ(Histogram::upper_bound_ns(24 * 8), 1'000'000'000u);
  EXPECT_EQ(Histogram::upper_bound_ns(JT_HIST_FINITE - 1), 16'000'000'000u);
  EXPECT_EQ(Histogram::upper_bound_ns(JT_HIST_FINITE), ~uint64_t{0});
}

TEST(HistogramBounds, grow_by_the_eighth_root_of_two) {
  for (unsigned i = 1; i < JT_HIST_FINITE; ++i) {
    const auto lower = static_cast<double>(Histogram::upper_bound_ns(i - 1));
    const auto upper = static_cast<double>(Histogram::upper_bound_ns(i));
    EXPECT_LT(lower, upper);
    EXPECT_NEAR(upper / lower, std::exp2(1.0 / 8), 1.0 / lower * 1.1) << "bucket " << i;
  }
}

TEST(HistogramBuckets, include_their_upper_bound_and_not_one_more) {
  for (unsigned i = 0; i < JT_HIST_FINITE; ++i) {
    EXPECT_EQ(Histogram::bucket_of(Histogram::upper_bound_ns(i)), i);
    EXPECT_EQ(Histogram::bucket_of(Histogram::upper_bound_ns(i) + 1), i + 1);
  }
  EXPECT_EQ(Histogram::bucket_of(0), 0u);
  EXPECT_EQ(Histogram::bucket_of(~uint64_t{0}), unsigned{JT_HIST_FINITE});
}

TEST(HistogramQuantile, is_zero_when_empty) {
  EXPECT_EQ(Histogram().quantile_ns(0.5), 0u);
  EXPECT_EQ(Histogram().min_ns(), 0u);
}

TEST(HistogramQuantile, of_one_call_is_that_call) {
  Histogram h;
  h.record(12'345, 1, 4096);
  for (const double q : {0.01, 0.5, 0.99, 1.0}) {
    EXPECT_EQ(h.quantile_ns(q), 12'345u);
  }
}

TEST(HistogramQuantile, takes_the_rank_that_decimal_shares_mean) {
  Histogram h;
  for (int i = 0; i < 7; ++i) {
    h.record(1'000, 1, 0);
  }
  for (int i = 0; i < 93; ++i) {
    h.record(1'000'000, 1, 0);
  }
  EXPECT_LT(h.quantile_ns(0.07), 2'000u);  // the 7th of 100, although 0.07 * 100 > 7 in binary
  EXPECT_GT(h.quantile_ns(0.08), 900'000u);
}

TEST(HistogramQuantile, stays_within_min_and_max_in_the_open_buckets) {
  Histogram small;
  small.record(10, 1, 0);
  small.record(12, 1, 0);
  EXPECT_GE(small.quantile_ns(0.5), 10u);
  EXPECT_LE(small.quantile_ns(0.5), 12u);
  Histogram large;
  large.record(20'000'000'000, 1, 0);
  large.record(30'000'000'000, 1, 0);
  EXPECT_GE(large.quantile_ns(0.5), 20'000'000'000u);
  EXPECT_LE(large.quantile_ns(0.5), 30'000'000'000u);
}

TEST(HistogramQuantile, survives_a_torn_read) {
  jt_hist torn{};
  torn.count = 1;  // counted, not yet in its bucket
  EXPECT_EQ(Histogram(torn).quantile_ns(0.5), 0u);
  torn.buckets[80] = 2;  // in its bucket, min and max not yet written
  EXPECT_EQ(Histogram(torn).quantile_ns(0.5), 0u);
}

struct Distribution {
  const char* name;
  uint64_t (*draw)(std::mt19937_64&);
};

uint64_t within_range(double ns) {
  return static_cast<uint64_t>(std::clamp(ns, 100.0, 15e9));
}

const Distribution distributions[] = {
    {"log-normal", [](std::mt19937_64& r) { return within_range(std::lognormal_distribution<>(9, 1.5)(r)); }},
    {"exponential",
     [](std::mt19937_64& r) { return within_range(std::exponential_distribution<>(1e-5)(r)); }},
    {"uniform",
     [](std::mt19937_64& r) { return within_range(std::uniform_real_distribution<>(100, 1e6)(r)); }},
    {"bimodal",
     [](std::mt19937_64& r) { return within_range(r() % 10 == 0 ? 2e6 + r() % 1000 : 700 + r() % 9); }},
    {"heavy tail",
     [](std::mt19937_64& r) { return within_range(200 / std::uniform_real_distribution<>(1e-7, 1)(r)); }},
    {"constant", [](std::mt19937_64&) { return uint64_t{6'100}; }},
};

class QuantileError : public testing::TestWithParam<Distribution> {};

// Against the exact sample of the same rank. The half nanosecond is the rounding of the result.
TEST_P(QuantileError, is_at_most_4_5_percent) {
  std::mt19937_64 random(42);
  Histogram h;
  std::vector<uint64_t> samples(50'000);
  for (uint64_t& sample : samples) {
    sample = GetParam().draw(random);
    h.record(sample, 1, 4096);
  }
  std::sort(samples.begin(), samples.end());
  for (const double q : {0.001, 0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.999, 0.9999, 1.0}) {
    const auto rank = static_cast<size_t>(std::ceil(q * static_cast<double>(samples.size()) - 1e-6));
    const auto exact = static_cast<double>(samples[rank - 1]);
    EXPECT_NEAR(static_cast<double>(h.quantile_ns(q)), exact, exact * 0.045 + 0.5) << "q = " << q;
  }
}

INSTANTIATE_TEST_SUITE_P(Histogram, QuantileError, testing::ValuesIn(distributions),
                         [](const auto& info) { return "distribution_" + std::to_string(info.index); });

// Not only for samples: for every pair of a bucket's ends, whatever lies between them.
TEST(HistogramQuantile, error_is_bounded_in_every_finite_bucket) {
  for (unsigned i = 1; i < JT_HIST_FINITE; ++i) {
    const uint64_t low = Histogram::upper_bound_ns(i - 1) + 1;
    const uint64_t high = Histogram::upper_bound_ns(i);
    Histogram h;
    h.record(low, 1, 0);
    h.record(low, 1, 0);
    h.record(high, 1, 0);
    const auto middle = static_cast<double>(h.quantile_ns(0.5));
    EXPECT_LE(middle - static_cast<double>(low), static_cast<double>(low) * 0.045 + 0.5) << "bucket " << i;
    EXPECT_LE(static_cast<double>(high) - middle, static_cast<double>(high) * 0.045 + 0.5) << "bucket " << i;
  }
}

bool same(const Histogram& a, const Histogram& b) {
  return std::equal(std::begin(a.raw().buckets), std::end(a.raw().buckets), std::begin(b.raw().buckets)) &&
         a.count() == b.count() && a.sum_ns() == b.sum_ns() && a.bytes() == b.bytes() &&
         a.extents() == b.extents() && a.min_ns() == b.min_ns() && a.max_ns() == b.max_ns();
}

TEST(HistogramMerge, equals_recording_everything_in_one) {
  Histogram a, b, all;
  for (const uint64_t ns : {100u, 2'000u, 30'000u}) {
    a.record(ns, 1, 10);
    all.record(ns, 1, 10);
  }
  for (const uint64_t ns : {70u, 5'000'000u}) {
    b.record(ns, 3, 20);
    all.record(ns, 3, 20);
  }
  a.merge(b);
  EXPECT_TRUE(same(a, all));
}

TEST(HistogramMerge, with_an_empty_one_changes_nothing) {
  Histogram a, empty;
  a.record(500, 1, 10);
  const Histogram before = a;
  a.merge(empty);
  EXPECT_TRUE(same(a, before));
  empty.merge(before);
  EXPECT_TRUE(same(empty, before));
}

TEST(KernelBuckets, are_the_same) {
  const auto same_bucket = [&](uint64_t ns) { EXPECT_EQ(jt_bucket_of(ns), Histogram::bucket_of(ns)) << ns; };
  for (uint64_t ns = 0; ns < 10'000; ++ns) {
    same_bucket(ns);
  }
  for (unsigned i = 0; i < JT_HIST_FINITE; ++i) {
    same_bucket(Histogram::upper_bound_ns(i) - 1);
    same_bucket(Histogram::upper_bound_ns(i));
    same_bucket(Histogram::upper_bound_ns(i) + 1);
  }
  for (unsigned bit = 5; bit < 63; ++bit) {
    for (uint64_t part = 32; part < 64; ++part) {  // both ends of each thirty-second
      same_bucket(part << (bit - 5));
      same_bucket(((part + 1) << (bit - 5)) - 1);
    }
  }
  same_bucket(~uint64_t{0});
}

TEST(HistogramSince, of_an_empty_start_is_the_whole) {
  Histogram h;
  h.record(500, 1, 10);
  h.record(90'000, 2, 20);
  EXPECT_TRUE(same(h.since(Histogram()), h));
}

TEST(HistogramSince, of_itself_is_empty) {
  Histogram h;
  h.record(500, 1, 10);
  EXPECT_TRUE(same(h.since(h), Histogram()));
}

TEST(HistogramSince, holds_new_extremes_exactly) {
  Histogram h;
  h.record(10'000, 1, 10);
  const Histogram before = h;
  h.record(777, 1, 10);
  h.record(1'234'567, 4, 40);
  const Histogram window = h.since(before);
  EXPECT_EQ(window.min_ns(), 777u);
  EXPECT_EQ(window.max_ns(), 1'234'567u);
  EXPECT_EQ(window.count(), 2u);
  EXPECT_EQ(window.extents(), 5u);
  EXPECT_EQ(window.bytes(), 50u);
  EXPECT_EQ(window.sum_ns(), 777u + 1'234'567u);
}

TEST(HistogramSince, bounds_old_extremes_by_the_buckets) {
  Histogram h;
  h.record(100, 1, 0);
  h.record(1'000'000, 1, 0);
  const Histogram before = h;
  h.record(5'000, 1, 0);
  const Histogram window = h.since(before);
  EXPECT_LE(window.min_ns(), 5'000u);
  EXPECT_GE(window.max_ns(), 5'000u);
  EXPECT_EQ(Histogram::bucket_of(window.min_ns()), Histogram::bucket_of(5'000));
  EXPECT_EQ(Histogram::bucket_of(window.max_ns()), Histogram::bucket_of(5'000));
}

TEST(HistogramSince, tightens_the_open_buckets_by_the_known_extremes) {
  Histogram h;
  h.record(40, 1, 0);
  h.record(20'000'000'000, 1, 0);
  const Histogram before = h;
  h.record(50, 1, 0);
  h.record(17'000'000'000, 1, 0);
  const Histogram window = h.since(before);
  EXPECT_EQ(window.min_ns(), 40u);
  EXPECT_EQ(window.max_ns(), 20'000'000'000u);
}

TEST(HistogramSince, never_goes_below_zero) {
  Histogram less, more;
  less.record(500, 1, 10);
  more.merge(less);
  more.record(600, 1, 10);
  EXPECT_TRUE(same(less.since(more), Histogram()));
}

}  // namespace
}  // namespace jemtrace::ledger
