#pragma once

#include <array>
#include <cstdint>

#include "jemtrace/abi.h"

namespace jemtrace::ledger {

/// Latencies and amounts of one kind of transition, in the exponential buckets of jt_hist. Adds up
/// losslessly.
class Histogram {
 public:
  Histogram() = default;
  explicit Histogram(const jt_hist& raw) : h_(raw) {}

  void record(uint64_t latency_ns, uint64_t extents, uint64_t bytes);
  void merge(const Histogram& other);
  /// What came since `earlier`, an older state of the same histogram. min and max are exact when the window
  /// moved them, else the bounds of the outermost buckets, tightened by what is known of the whole.
  [[nodiscard]] Histogram since(const Histogram& earlier) const;

  [[nodiscard]] uint64_t extents() const { return h_.extents; }
  [[nodiscard]] uint64_t bytes() const { return h_.bytes; }
  [[nodiscard]] uint64_t count() const { return h_.count; }
  [[nodiscard]] uint64_t sum_ns() const { return h_.sum_ns; }
  [[nodiscard]] uint64_t min_ns() const { return h_.count == 0 ? 0 : h_.min_ns; }
  [[nodiscard]] uint64_t max_ns() const { return h_.max_ns; }
  [[nodiscard]] const jt_hist& raw() const { return h_; }

  /// Latency below which a share `q` of the calls stayed, 0 < q <= 1: of the ceil(q * count)-th smallest,
  /// within 4.5 % (half a bucket) from 60 ns to 16 s, give or take the rounding to whole ns, and never beyond
  /// min and max. The outermost buckets are wider. 0 when empty.
  [[nodiscard]] uint64_t quantile_ns(double q) const;

  /// Largest latency of bucket `i`, in whole nanoseconds; ~0 for the last.
  static uint64_t upper_bound_ns(unsigned i);
  static unsigned bucket_of(uint64_t latency_ns);

 private:
  jt_hist h_{};
};

}  // namespace jemtrace::ledger
