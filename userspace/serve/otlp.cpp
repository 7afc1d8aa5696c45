#include "serve/otlp.hpp"

#include <algorithm>
#include <map>
#include <protozero/pbf_builder.hpp>

#include "serve/buckets.hpp"
#include "util/text.hpp"

namespace jemtrace::serve {
namespace {

// opentelemetry/proto/{collector/metrics,metrics,resource,common}/v1
namespace tag {
enum class Request : protozero::pbf_tag_type { resource_metrics = 1 };
enum class ResourceMetrics : protozero::pbf_tag_type { resource = 1, scope_metrics = 2 };
enum class Resource : protozero::pbf_tag_type { attributes = 1 };
enum class KeyValue : protozero::pbf_tag_type { key = 1, value = 2 };
enum class AnyValue : protozero::pbf_tag_type { string_value = 1, int_value = 3 };
enum class ScopeMetrics : protozero::pbf_tag_type { scope = 1, metrics = 2 };
enum class Scope : protozero::pbf_tag_type { name = 1, version = 2 };
enum class Metric : protozero::pbf_tag_type {
  name = 1,
  description = 2,
  unit = 3,
  gauge = 5,
  sum = 7,
  exponential_histogram = 10,
};
/// Gauge, Sum and ExponentialHistogram.
enum class Data : protozero::pbf_tag_type { points = 1, temporality = 2, is_monotonic = 3 };
enum class Number : protozero::pbf_tag_type { start = 2, time = 3, as_double = 4, attributes = 7 };
enum class Point : protozero::pbf_tag_type {
  attributes = 1,
  start = 2,
  time = 3,
  count = 4,
  sum = 5,
  scale = 6,
  zero_count = 7,
  positive = 8,
  exemplars = 11,
  min = 12,
  max = 13,
  zero_threshold = 14,
};
enum class Buckets : protozero::pbf_tag_type { offset = 1, counts = 2 };
enum class Exemplar : protozero::pbf_tag_type { time = 2, as_double = 3, attributes = 7 };
}  // namespace tag

constexpr int32_t delta = 1, cumulative = 2;  // AggregationTemporality

template <typename Tag>
using Builder = protozero::pbf_builder<Tag>;

template <typename Tag>
void add_attribute(Builder<Tag>& parent, Tag where, std::string_view key, std::string_view value) {
  Builder<tag::KeyValue> pair(parent, where);
  pair.add_string(tag::KeyValue::key, key.data(), key.size());
  Builder<tag::AnyValue> any(pair, tag::KeyValue::value);
  any.add_string(tag::AnyValue::string_value, value.data(), value.size());
}

template <typename Tag>
void add_attribute(Builder<Tag>& parent, Tag where, std::string_view key, int64_t value) {
  Builder<tag::KeyValue> pair(parent, where);
  pair.add_string(tag::KeyValue::key, key.data(), key.size());
  Builder<tag::AnyValue> any(pair, tag::KeyValue::value);
  any.add_int64(tag::AnyValue::int_value, value);
}

template <typename Tag>
void add_attributes(Builder<Tag>& parent, Tag where, const Series& series) {
  if (series.target) {
    for (const Label& label : *series.target) {
      add_attribute(parent, where, label.name, label.value);
    }
  }
  for (const Label& label : series.labels) {
    add_attribute(parent, where, label.name, label.value);
  }
}

double seconds(uint64_t ns) {
  return static_cast<double>(ns) / 1e9;
}

/// The name without its unit, and the unit by UCUM.
std::string otlp_name(const Family& family) {
  std::string name = sample_name(family);
  if (family.type == Type::counter) {
    name.resize(name.size() - std::string_view("_total").size());
  }
  const std::string suffix = "_" + std::string(family.unit);
  if (!family.unit.empty() && name.ends_with(suffix)) {
    name.resize(name.size() - suffix.size());
  }
  return name;
}

std::string otlp_unit(const Family& family) {
  if (family.unit == "seconds") {
    return "s";
  }
  return family.unit == "bytes" ? "By" : "1";
}

/// All series of a moment, to be found again.
class Index {
 public:
  explicit Index(const Exposition* exposition) {
    if (exposition == nullptr) {
      return;
    }
    for (const Family& family : exposition->families) {
      for (const Series& series : family.series) {
        series_[key(family, series)] = &series;
      }
    }
  }
  [[nodiscard]] const Series* find(const Family& family, const Series& series) const {
    const auto found = series_.find(key(family, series));
    return found == series_.end() ? nullptr : found->second;
  }

 private:
  static std::string key(const Family& family, const Series& series) {
    std::string key(family.name);
    const auto add = [&](const Labels& labels) {
      for (const Label& label : labels) {
        key += '\0';
        key += label.name;
        key += '\0';
        key += label.value;
      }
    };
    if (series.target) {
      add(*series.target);
    }
    add(series.labels);
    return key;
  }
  std::map<std::string, const Series*> series_;
};

class Encoder {
 public:
  Encoder(const Exposition& now, const Exposition* since) : now_(now), since_(since), before_(since) {}

  void add(Builder<tag::ScopeMetrics>& scope, const Family& family) const {
    Builder<tag::Metric> metric(scope, tag::ScopeMetrics::metrics);
    metric.add_string(tag::Metric::name, otlp_name(family));
    metric.add_string(tag::Metric::description, family.help.data(), family.help.size());
    metric.add_string(tag::Metric::unit, otlp_unit(family));
    const bool counts = family.type == Type::counter || family.type == Type::histogram;
    const tag::Metric kind = family.type == Type::histogram ? tag::Metric::exponential_histogram
                             : family.type == Type::counter ? tag::Metric::sum
                                                            : tag::Metric::gauge;
    Builder<tag::Data> data(metric, kind);
    for (const Series& series : family.series) {
      const Series* before = counts ? before_.find(family, series) : nullptr;
      if (family.type == Type::histogram) {
        add_histogram(data, series, before);
      } else {
        add_number(data, series, counts, before);
      }
    }
    if (counts) {
      data.add_enum(tag::Data::temporality, since_ != nullptr ? delta : cumulative);
    }
    if (family.type == Type::counter) {
      data.add_bool(tag::Data::is_monotonic, true);
    }
  }

 private:
  /// A clock that was set back must not end a time before its start.
  template <typename Tag>
  void add_times(Builder<Tag>& point, Tag start_tag, Tag time_tag, const Series& series,
                 const Series* before) const {
    const int64_t start = before != nullptr ? since_->made_unix_ns : series.start_unix_ns;
    point.add_fixed64(start_tag, static_cast<uint64_t>(start));
    point.add_fixed64(time_tag, static_cast<uint64_t>(std::max(now_.made_unix_ns, start)));
  }

  void add_number(Builder<tag::Data>& data, const Series& series, bool counts, const Series* before) const {
    // What is less than before began anew.
    if (before != nullptr && before->value > series.value) {
      before = nullptr;
    }
    Builder<tag::Number> point(data, tag::Data::points);
    if (counts) {
      add_times(point, tag::Number::start, tag::Number::time, series, before);
    } else {
      point.add_fixed64(tag::Number::time, static_cast<uint64_t>(now_.made_unix_ns));
    }
    point.add_double(tag::Number::as_double, series.value - (before != nullptr ? before->value : 0));
    add_attributes(point, tag::Number::attributes, series);
  }

  void add_histogram(Builder<tag::Data>& data, const Series& series, const Series* before) const {
    if (before != nullptr && before->point->histogram.count() > series.point->histogram.count()) {
      before = nullptr;
    }
    const ledger::Histogram histogram =
        before != nullptr ? series.point->histogram.since(before->point->histogram) : series.point->histogram;
    Builder<tag::Point> point(data, tag::Data::points);
    add_attributes(point, tag::Point::attributes, series);
    add_times(point, tag::Point::start, tag::Point::time, series, before);
    point.add_fixed64(tag::Point::count, count_of(histogram));
    point.add_double(tag::Point::sum, seconds(histogram.sum_ns()));
    point.add_sint32(tag::Point::scale, JT_HIST_SCHEMA);
    point.add_fixed64(tag::Point::zero_count, histogram.raw().buckets[0]);
    if (const NativeSpan run = native_run(histogram); !run.counts.empty()) {
      Builder<tag::Buckets> buckets(point, tag::Point::positive);
      // OpenTelemetry names a bucket by its lower bound, Prometheus by its upper one.
      buckets.add_sint32(tag::Buckets::offset, run.first - 1);
      buckets.add_packed_uint64(tag::Buckets::counts, run.counts.begin(), run.counts.end());
    }
    if (series.point->exemplar) {
      const auto& seen = *series.point->exemplar;
      Builder<tag::Exemplar> exemplar(point, tag::Point::exemplars);
      exemplar.add_fixed64(tag::Exemplar::time, static_cast<uint64_t>(seen.unix_ns));
      exemplar.add_double(tag::Exemplar::as_double, seconds(seen.latency_ns));
      add_attribute(exemplar, tag::Exemplar::attributes, "pid", static_cast<int64_t>(seen.pid));
      add_attribute(exemplar, tag::Exemplar::attributes, "tid", static_cast<int64_t>(seen.tid));
      if (seen.arena) {
        add_attribute(exemplar, tag::Exemplar::attributes, "arena", static_cast<int64_t>(*seen.arena));
      }
    }
    if (histogram.count() > 0) {
      point.add_double(tag::Point::min, seconds(histogram.min_ns()));
      point.add_double(tag::Point::max, seconds(histogram.max_ns()));
    }
    point.add_double(tag::Point::zero_threshold, zero_threshold_seconds);
  }

  const Exposition& now_;
  const Exposition* since_;
  Index before_;
};

}  // namespace

std::string encode_otlp(const Exposition& now, const Exposition* since, const Resource& resource) {
  const Encoder encoder(now, since);
  std::string out;
  Builder<tag::Request> request(out);
  Builder<tag::ResourceMetrics> metrics(request, tag::Request::resource_metrics);
  {
    Builder<tag::Resource> who(metrics, tag::ResourceMetrics::resource);
    add_attribute(who, tag::Resource::attributes, "service.name", "jemtrace");
    add_attribute(who, tag::Resource::attributes, "service.version", resource.version);
    add_attribute(who, tag::Resource::attributes, "host.name", escape(resource.host));
  }
  Builder<tag::ScopeMetrics> scope(metrics, tag::ResourceMetrics::scope_metrics);
  {
    Builder<tag::Scope> made_by(scope, tag::ScopeMetrics::scope);
    made_by.add_string(tag::Scope::name, "jemtrace");
    made_by.add_string(tag::Scope::version, resource.version);
  }
  for (const Family& family : now.families) {
    if (!family.series.empty()) {
      encoder.add(scope, family);
    }
  }
  return out;
}

}  // namespace jemtrace::serve
