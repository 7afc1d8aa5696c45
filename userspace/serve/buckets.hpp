#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "ledger/histogram.hpp"

/// The kernel side's histogram (JT_HIST_* in abi.h) in the layouts of others. It has the boundaries of
/// Prometheus' schema 3 and OpenTelemetry's scale 3, so that nothing is lost or guessed on the way.
namespace jemtrace::serve {

/// All up to this, inclusive, is bucket 0 of the kernel side: the zero bucket of both.
constexpr double zero_threshold_seconds = 1.0 / (1 << -JT_HIST_MIN_EXP);  // 2^-24 s, 59.6 ns

/// Prometheus' index of bucket `i` > 0: its upper bound is 2^(index/8) seconds. What took longer than
/// 2^JT_HIST_MAX_EXP = 16 seconds goes into the bucket behind that, for want of a better one.
constexpr int native_index(unsigned i) {
  return static_cast<int>(i) + 8 * JT_HIST_MIN_EXP;
}

/// A run of buckets of which the first and the last are not empty.
struct NativeSpan {
  int first = 0;  // native_index
  std::vector<uint64_t> counts;
};
/// All buckets but the zero bucket. A gap of a few empty ones joins two spans: that is what a new span costs.
std::vector<NativeSpan> native_spans(const ledger::Histogram& histogram);
/// The same as one run, for OpenTelemetry. Empty counts: all is in the zero bucket.
NativeSpan native_run(const ledger::Histogram& histogram);

/// Exponents of the classic upper bounds, `le` = 2^e seconds: each power of two where purges take their time
/// (1 us to 16 ms), each second one above. All are boundaries of the kernel side's buckets, so that each
/// count is exact; as there, the bound belongs to the bucket below it.
constexpr std::array<int, 20> classic_exponents = {-20, -19, -18, -17, -16, -15, -14, -13, -12, -11,
                                                   -10, -9,  -8,  -7,  -6,  -4,  -2,  0,   2,   4};
/// Purges that took no longer than each of classic_exponents.
std::array<uint64_t, classic_exponents.size()> classic_counts(const ledger::Histogram& histogram);

/// The sum of all buckets. The kernel side adds to them while they are read: its own count may be one off.
uint64_t count_of(const ledger::Histogram& histogram);

}  // namespace jemtrace::serve
