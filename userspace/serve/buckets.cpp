#include "serve/buckets.hpp"

#include <numeric>

namespace jemtrace::serve {

std::vector<NativeSpan> native_spans(const ledger::Histogram& histogram) {
  constexpr unsigned joined_gap = 2;
  const auto& buckets = histogram.raw().buckets;
  std::vector<NativeSpan> spans;
  unsigned gap = 0;
  for (unsigned i = 1; i < JT_HIST_BUCKETS; ++i) {
    if (buckets[i] == 0) {
      ++gap;
      continue;
    }
    if (spans.empty() || gap > joined_gap) {
      spans.push_back({native_index(i), {}});
    } else {
      spans.back().counts.insert(spans.back().counts.end(), gap, 0);
    }
    spans.back().counts.push_back(buckets[i]);
    gap = 0;
  }
  return spans;
}

NativeSpan native_run(const ledger::Histogram& histogram) {
  const auto& buckets = histogram.raw().buckets;
  NativeSpan run;
  for (unsigned i = 1; i < JT_HIST_BUCKETS; ++i) {
    if (buckets[i] == 0) {
      continue;
    }
    if (run.counts.empty()) {
      run.first = native_index(i);
    }
    run.counts.resize(static_cast<size_t>(native_index(i) - run.first) + 1, 0);
    run.counts.back() = buckets[i];
  }
  return run;
}

std::array<uint64_t, classic_exponents.size()> classic_counts(const ledger::Histogram& histogram) {
  std::array<uint64_t, classic_exponents.size()> counts{};
  const auto& buckets = histogram.raw().buckets;
  uint64_t count = 0;
  unsigned next = 0;
  for (size_t i = 0; i < counts.size(); ++i) {
    const auto last = static_cast<unsigned>((classic_exponents[i] - JT_HIST_MIN_EXP) * 8);
    for (; next <= last; ++next) {
      count += buckets[next];
    }
    counts[i] = count;
  }
  return counts;
}

uint64_t count_of(const ledger::Histogram& histogram) {
  const auto& buckets = histogram.raw().buckets;
  return std::accumulate(std::begin(buckets), std::end(buckets), uint64_t{0});
}

}  // namespace jemtrace::serve
