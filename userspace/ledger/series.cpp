#include "ledger/series.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace jemtrace::ledger {
namespace {

constexpr size_t fewest_points = 10;
constexpr double least_share = 0.05, least_bytes = 1 << 20;
// Chosen on made-up series (tests/unit/ledger/series_test.cpp): noise reaches 0.3, saw teeth stay above 0.6.
constexpr double least_correlation = 0.5;
constexpr double least_agreement = 0.6;
constexpr size_t grid_points = 256;

double percentile(std::vector<double> values, double share) {
  const auto at = static_cast<size_t>(share * static_cast<double>(values.size() - 1));
  std::nth_element(values.begin(), values.begin() + static_cast<std::ptrdiff_t>(at), values.end());
  return values[at];
}

/// The points at even distances, by the last value known at each.
struct Grid {
  double step_s = 0;
  std::vector<double> values;
};

Grid resample(const std::vector<Series::Point>& points) {
  const size_t n = std::min(points.size(), grid_points);
  const double span_ns = static_cast<double>(points.back().at_ns - points.front().at_ns);
  Grid grid{span_ns / 1e9 / static_cast<double>(n - 1), {}};
  size_t next = 0;
  for (size_t i = 0; i < n; ++i) {
    const double at = span_ns * static_cast<double>(i) / static_cast<double>(n - 1);
    while (next + 1 < points.size() &&
           static_cast<double>(points[next + 1].at_ns - points.front().at_ns) <= at + 0.5) {
      ++next;
    }
    grid.values.push_back(static_cast<double>(points[next].bytes));
  }
  return grid;
}

struct Slope {
  double per_step = 0;   // the median over all pairs
  double agreement = 0;  // Kendall's tau: 1 always up, -1 always down
};

Slope slope_of(const std::vector<double>& values) {
  std::vector<double> slopes;
  double signs = 0;
  for (size_t i = 0; i < values.size(); ++i) {
    for (size_t j = i + 1; j < values.size(); ++j) {
      const double change = values[j] - values[i];
      slopes.push_back(change / static_cast<double>(j - i));
      signs += change > 0 ? 1 : change < 0 ? -1 : 0;
    }
  }
  return {percentile(slopes, 0.5), signs / static_cast<double>(slopes.size())};
}

double correlation(const std::vector<double>& values, size_t lag) {
  double both = 0;
  double left = 0;
  double right = 0;
  for (size_t i = 0; i + lag < values.size(); ++i) {
    both += values[i] * values[i + lag];
    left += values[i] * values[i];
    right += values[i + lag] * values[i + lag];
  }
  return left > 0 && right > 0 ? both / std::sqrt(left * right) : 0;
}

/// The lag at which the series looks most like itself: the first peak behind the first dip.
std::optional<size_t> period_of(std::vector<double> values) {
  const double mean = std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
  for (double& value : values) {
    value -= mean;
  }
  std::vector<double> by_lag = {1};
  for (size_t lag = 1; lag <= values.size() * 2 / 5; ++lag) {
    by_lag.push_back(correlation(values, lag));
  }
  const auto dip = std::find_if(by_lag.begin(), by_lag.end(), [](double c) { return c <= 0; });
  if (dip == by_lag.end()) {
    return std::nullopt;
  }
  const auto peak = std::max_element(dip, by_lag.end());
  if (*peak < least_correlation) {
    return std::nullopt;
  }
  // A multiple of the period fits as well: the first that is nearly as high is the period.
  const auto first = std::find_if(dip, by_lag.end(), [&](double c) { return c >= 0.9 * *peak; });
  auto top = first;
  while (top + 1 != by_lag.end() && *(top + 1) > *top) {
    ++top;
  }
  return static_cast<size_t>(top - by_lag.begin());
}

}  // namespace

const char* name(Trend trend) {
  switch (trend) {
    case Trend::steady:
      return "steady";
    case Trend::ratcheting:
      return "ratcheting_up";
    case Trend::falling:
      return "falling";
    case Trend::rhythmic:
      return "rhythmic";
    case Trend::unknown:
      break;
  }
  return "unknown";
}

void Series::add(uint64_t at_ns, uint64_t bytes) {
  if (seen_++ % stride_ != 0) {
    return;
  }
  if (!points_.empty() && at_ns <= points_.back().at_ns) {
    return;  // a clock that stands still
  }
  if (points_.size() == most) {
    for (size_t i = 0; i < most / 2; ++i) {
      points_[i] = points_[2 * i];
    }
    points_.resize(most / 2);
    stride_ *= 2;
  }
  points_.push_back({at_ns, bytes});
}

TrendReport Series::report() const {
  TrendReport out;
  if (points_.size() < fewest_points) {
    return out;
  }
  const Grid grid = resample(points_);
  const double low = percentile(grid.values, 0.05);
  const double high = percentile(grid.values, 0.95);
  out.low_bytes = static_cast<uint64_t>(low);
  out.high_bytes = static_cast<uint64_t>(high);
  const Slope slope = slope_of(grid.values);
  out.per_second = slope.per_step / grid.step_s;
  const double change = high - low;
  if (change < std::max(least_bytes, least_share * high)) {
    out.trend = Trend::steady;
    return out;
  }
  const double drift = std::abs(slope.per_step) * static_cast<double>(grid.values.size());
  if (std::abs(slope.agreement) >= least_agreement && drift >= change / 2) {
    out.trend = slope.per_step > 0 ? Trend::ratcheting : Trend::falling;
    return out;
  }
  if (const auto lag = period_of(grid.values)) {
    out.trend = Trend::rhythmic;
    out.period_s = static_cast<double>(*lag) * grid.step_s;
    return out;
  }
  out.trend = Trend::steady;
  return out;
}

}  // namespace jemtrace::ledger
