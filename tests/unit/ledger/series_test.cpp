#include "ledger/series.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <random>

namespace jemtrace::ledger {
namespace {

constexpr uint64_t mib = uint64_t{1} << 20;
constexpr uint64_t second = 1'000'000'000;

/// `f` of the seconds since the start, in MiB, once a second.
Series of(size_t n, const std::function<double(double)>& f) {
  Series series;
  for (size_t i = 0; i < n; ++i) {
    series.add(i * second, static_cast<uint64_t>(f(static_cast<double>(i)) * static_cast<double>(mib)));
  }
  return series;
}

Trend trend(size_t n, const std::function<double(double)>& f) {
  return of(n, f).report().trend;
}

TEST(Series, few_points_tell_nothing) {
  EXPECT_EQ(Series().report().trend, Trend::unknown);
  EXPECT_EQ(trend(9, [](double t) { return t; }), Trend::unknown);
}

TEST(Series, steady) {
  EXPECT_EQ(trend(60, [](double) { return 500; }), Trend::steady);
  EXPECT_EQ(trend(60, [](double t) { return 500 + 5 * std::sin(t); }), Trend::steady);
  std::mt19937 random(1);  // NOLINT(cert-msc51-cpp)
  std::normal_distribution<double> noise(500, 50);
  for (int i = 0; i < 20; ++i) {
    EXPECT_EQ(trend(100, [&](double) { return std::max(0.0, noise(random)); }), Trend::steady);
  }
}

TEST(Series, ratcheting_up) {
  EXPECT_EQ(trend(60, [](double t) { return 500 + 5 * t; }), Trend::ratcheting);
  EXPECT_EQ(trend(60, [](double t) { return 500 + 50 * std::floor(t / 10); }), Trend::ratcheting);
  EXPECT_EQ(trend(60, [](double t) { return 900 - 5 * t; }), Trend::falling);
  const TrendReport report = of(60, [](double t) { return 500 + 5 * t; }).report();
  EXPECT_NEAR(report.per_second / static_cast<double>(mib), 5, 0.01);
}

TEST(Series, rhythmic_with_its_period) {
  const auto batches = [](double period) {
    return [period](double t) { return std::fmod(t, period) < period / 3 ? 900.0 : 200.0; };
  };
  for (const double period : {5.0, 10.0, 30.0}) {
    const TrendReport report = of(120, batches(period)).report();
    EXPECT_EQ(report.trend, Trend::rhythmic) << period;
    EXPECT_NEAR(report.period_s.value_or(0), period, 1) << period;
  }
  const TrendReport teeth = of(200, [](double t) { return 100 + 20 * std::fmod(t, 20); }).report();
  EXPECT_EQ(teeth.trend, Trend::rhythmic);
  EXPECT_NEAR(teeth.period_s.value_or(0), 20, 1);
  // Seen once and a half only: it may never come again.
  EXPECT_NE(trend(45, batches(30)), Trend::rhythmic);
}

TEST(Series, stays_bounded_however_long_it_is_watched) {
  const Series series = of(100'000, [](double t) { return std::fmod(t, 2000) < 700 ? 900.0 : 200.0; });
  EXPECT_LE(series.size(), 512u);
  EXPECT_GE(series.size(), 256u);
  EXPECT_EQ(series.points().front().at_ns, 0u);
  EXPECT_GT(series.points().back().at_ns, 99'000 * second);
}

TEST(Series, a_clock_that_stands_still_adds_nothing) {
  Series series;
  for (int i = 0; i < 100; ++i) {
    series.add(5, 1);
  }
  EXPECT_EQ(series.size(), 1u);
}

}  // namespace
}  // namespace jemtrace::ledger
