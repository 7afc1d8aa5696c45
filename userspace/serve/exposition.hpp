#pragma once

#include <sys/types.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "ledger/histogram.hpp"

/// What is measured, as families of series: one moment, ready to be written in any format. Plain data; made
/// once, then only read, by several threads at a time.
namespace jemtrace::serve {

/// Values are any bytes that `escape` lets through: well-formed UTF-8 without control characters.
struct Label {
  std::string_view name;  // a literal
  std::string value;
  bool operator==(const Label&) const = default;
};
using Labels = std::vector<Label>;

/// One purge: what a point in a histogram stands for. Its labels make no series.
struct Exemplar {
  pid_t pid = 0, tid = 0;
  std::optional<uint32_t> arena;
  uint64_t latency_ns = 0;
  int64_t unix_ns = 0;  // time of day when it was seen
};

struct HistogramPoint {
  ledger::Histogram histogram;
  std::optional<Exemplar> exemplar;
};

struct Series {
  std::shared_ptr<const Labels> target;  // shared by all series of one; nullptr: of jemtrace itself
  Labels labels = {};                    // behind those
  double value = 0;
  std::shared_ptr<const HistogramPoint> point = {};  // Type::histogram: instead of `value`
  int64_t start_unix_ns = 0;                         // when it was 0: OTLP wants to know
};

enum class Type { counter, gauge, info, histogram };

struct Family {
  std::string_view name;  // without "_total" and "_info"; ends with the unit
  Type type = Type::gauge;
  std::string_view unit;  // "seconds", "bytes"; empty: a count
  std::string_view help;
  std::vector<Series> series = {};
};

struct Exposition {
  std::vector<Family> families;
  uint64_t made_mono_ns = 0;
  int64_t made_unix_ns = 0;
};

/// The name of a family's samples, but for those of a histogram: "jemtrace_sweeps_total".
std::string sample_name(const Family& family);

}  // namespace jemtrace::serve
