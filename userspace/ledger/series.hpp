#pragma once

#include <cstdint>
#include <optional>
#include <vector>

namespace jemtrace::ledger {

/// How a quantity behaves over time.
enum class Trend {
  unknown,     // seen too few times
  steady,      // stays where it is
  ratcheting,  // goes up and does not come back
  falling,
  rhythmic,  // goes up and down with a period: batches
};
const char* name(Trend trend);  // "steady", "ratcheting_up", ...

struct TrendReport {
  Trend trend = Trend::unknown;
  double per_second = 0;                   // bytes: the median slope of all pairs of points (Theil and Sen)
  std::optional<double> period_s;          // rhythmic
  uint64_t low_bytes = 0, high_bytes = 0;  // the 5th and the 95th percentile
};

/// Keeps a bounded number of points of a quantity, however long it is watched: once full, every second one
/// goes, and from then on only every second one is taken.
class Series {
 public:
  void add(uint64_t at_ns, uint64_t bytes);
  [[nodiscard]] size_t size() const { return points_.size(); }
  /// Less than 1 MiB, or 5 % of its size, is no change. A period must be seen two and a half times.
  [[nodiscard]] TrendReport report() const;

  struct Point {
    uint64_t at_ns = 0;
    uint64_t bytes = 0;
  };
  [[nodiscard]] const std::vector<Point>& points() const { return points_; }

 private:
  static constexpr size_t most = 512;
  std::vector<Point> points_;
  uint64_t stride_ = 1, seen_ = 0;
};

}  // namespace jemtrace::ledger
