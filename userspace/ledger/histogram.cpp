#include "ledger/histogram.hpp"

#include <algorithm>
#include <cmath>

namespace jemtrace::ledger {
namespace {

/// 2^(r/8) for r = 0..7. A long double has 64 bits or more and the bounds have at most 34, so that no
/// rounding reaches a whole nanosecond; the unit test proves each bound with integers.
constexpr std::array<long double, 8> roots = {
    1.0L,
    1.090507732665257659207010655760707979L,
    1.189207115002721066717499970560475915L,
    1.296839554651009665933754117792451159L,
    1.414213562373095048801688724209698079L,
    1.542210825407940823612291862090734841L,
    1.681792830507429086062250952466429790L,
    1.834008086409342463487083189588288856L,
};

constexpr uint64_t finite_bound_ns(unsigned i) {
  long double ns = roots[i % 8] * 1e9L;
  for (int exponent = static_cast<int>(i / 8) + JT_HIST_MIN_EXP; exponent != 0;
       exponent += exponent < 0 ? 1 : -1) {
    ns *= exponent < 0 ? 0.5L : 2.0L;
  }
  return static_cast<uint64_t>(ns);
}

constexpr std::array<uint64_t, JT_HIST_BUCKETS> make_bounds() {
  std::array<uint64_t, JT_HIST_BUCKETS> bounds{};
  for (unsigned i = 0; i < JT_HIST_FINITE; ++i) {
    bounds[i] = finite_bound_ns(i);
  }
  bounds[JT_HIST_FINITE] = ~uint64_t{0};
  return bounds;
}

constexpr std::array<uint64_t, JT_HIST_BUCKETS> bounds = make_bounds();

uint64_t lower_bound_ns(unsigned i) {
  return i == 0 ? 0 : bounds[i - 1] + 1;
}

/// Counters are read while the kernel adds to them: one that seems to go backwards has not moved.
uint64_t grown(uint64_t now, uint64_t earlier) {
  return now > earlier ? now - earlier : 0;
}

/// Smallest x with at least a share q of `count` at or below it. 0.07 * 100 is more than 7 in binary: a share
/// that is a whole number of calls but for rounding counts as one.
uint64_t rank_of(double q, uint64_t count) {
  const long double exact = static_cast<long double>(q) * static_cast<long double>(count);
  const auto rank = static_cast<uint64_t>(std::ceil(exact * (1 - 1e-12L)));
  return std::clamp<uint64_t>(rank, 1, count);
}

}  // namespace

uint64_t Histogram::upper_bound_ns(unsigned i) {
  return bounds[std::min<unsigned>(i, JT_HIST_FINITE)];
}

unsigned Histogram::bucket_of(uint64_t latency_ns) {
  return static_cast<unsigned>(std::lower_bound(bounds.begin(), bounds.end(), latency_ns) - bounds.begin());
}

void Histogram::record(uint64_t latency_ns, uint64_t extents, uint64_t bytes) {
  h_.min_ns = h_.count == 0 ? latency_ns : std::min<uint64_t>(h_.min_ns, latency_ns);
  h_.max_ns = std::max<uint64_t>(h_.max_ns, latency_ns);
  h_.extents += extents;
  h_.bytes += bytes;
  h_.count += 1;
  h_.sum_ns += latency_ns;
  h_.buckets[bucket_of(latency_ns)] += 1;
}

void Histogram::merge(const Histogram& other) {
  if (other.h_.count > 0) {
    h_.min_ns = h_.count == 0 ? other.h_.min_ns : std::min(h_.min_ns, other.h_.min_ns);
    h_.max_ns = std::max(h_.max_ns, other.h_.max_ns);
  }
  h_.extents += other.h_.extents;
  h_.bytes += other.h_.bytes;
  h_.count += other.h_.count;
  h_.sum_ns += other.h_.sum_ns;
  for (unsigned i = 0; i < JT_HIST_BUCKETS; ++i) {
    h_.buckets[i] += other.h_.buckets[i];
  }
}

Histogram Histogram::since(const Histogram& earlier) const {
  Histogram window;
  jt_hist& w = window.h_;
  w.extents = grown(h_.extents, earlier.h_.extents);
  w.bytes = grown(h_.bytes, earlier.h_.bytes);
  w.count = grown(h_.count, earlier.h_.count);
  w.sum_ns = grown(h_.sum_ns, earlier.h_.sum_ns);
  unsigned first = JT_HIST_BUCKETS;
  unsigned last = 0;
  for (unsigned i = 0; i < JT_HIST_BUCKETS; ++i) {
    w.buckets[i] = grown(h_.buckets[i], earlier.h_.buckets[i]);
    if (w.buckets[i] > 0) {
      first = std::min(first, i);
      last = i;
    }
  }
  if (w.count == 0 || first == JT_HIST_BUCKETS) {
    return window;
  }
  // A new extreme can only have come in the window; an old one says that the window stayed within it.
  const bool new_min = earlier.h_.count == 0 || h_.min_ns < earlier.h_.min_ns;
  const bool new_max = earlier.h_.count == 0 || h_.max_ns > earlier.h_.max_ns;
  w.min_ns = new_min ? h_.min_ns : std::max<uint64_t>(lower_bound_ns(first), h_.min_ns);
  w.max_ns = new_max ? h_.max_ns : std::min<uint64_t>(bounds[last], h_.max_ns);
  return window;
}

uint64_t Histogram::quantile_ns(double q) const {
  uint64_t count = 0;  // of the buckets: h_.count may be a call ahead of them, or behind
  for (const uint64_t n : h_.buckets) {
    count += n;
  }
  if (count == 0) {
    return 0;
  }
  const uint64_t rank = rank_of(q, count);
  if (rank == count) {
    return h_.max_ns;
  }
  unsigned i = 0;
  for (uint64_t below = h_.buckets[0]; below < rank; below += h_.buckets[i]) {
    ++i;
  }
  // The geometric middle of what the bucket can hold: the extremes narrow its ends, and close the open ones.
  const uint64_t low = std::max<uint64_t>(lower_bound_ns(i), h_.min_ns);
  const uint64_t high = std::min<uint64_t>(bounds[i], h_.max_ns);
  if (low >= high) {
    return std::min(low, h_.max_ns);
  }
  const long double middle = std::sqrt(static_cast<long double>(low) * static_cast<long double>(high));
  return std::clamp<uint64_t>(static_cast<uint64_t>(std::llround(middle)), low, high);
}

}  // namespace jemtrace::ledger
