// io.prometheus.client.MetricFamily, each behind its length. The numbers of the fields are those of
// prometheus/client_model's metrics.proto.
#include <cmath>
#include <protozero/pbf_builder.hpp>
#include <protozero/varint.hpp>

#include "serve/buckets.hpp"
#include "serve/formats.hpp"

namespace jemtrace::serve {
namespace {

namespace tag {
enum class Family : protozero::pbf_tag_type { name = 1, help = 2, type = 3, metric = 4 };
enum class Metric : protozero::pbf_tag_type { label = 1, gauge = 2, counter = 3, histogram = 7 };
enum class LabelPair : protozero::pbf_tag_type { name = 1, value = 2 };
enum class Value : protozero::pbf_tag_type { value = 1 };  // of Gauge and of Counter
enum class Histogram : protozero::pbf_tag_type {
  sample_count = 1,
  sample_sum = 2,
  bucket = 3,
  schema = 5,
  zero_threshold = 6,
  zero_count = 7,
  positive_span = 12,
  positive_delta = 13,
};
enum class Bucket : protozero::pbf_tag_type { cumulative_count = 1, upper_bound = 2, exemplar = 3 };
enum class Span : protozero::pbf_tag_type { offset = 1, length = 2 };
enum class Exemplar : protozero::pbf_tag_type { label = 1, value = 2, timestamp = 3 };
enum class Timestamp : protozero::pbf_tag_type { seconds = 1, nanos = 2 };
}  // namespace tag

template <typename Tag>
using Builder = protozero::pbf_builder<Tag>;

int32_t type_number(Type type) {
  switch (type) {
    case Type::counter:
      return 0;
    case Type::histogram:
      return 4;
    default:
      return 1;
  }
}

template <typename Tag>
void add_label(Builder<Tag>& parent, Tag where, std::string_view name, std::string_view value) {
  Builder<tag::LabelPair> pair(parent, where);
  pair.add_string(tag::LabelPair::name, name.data(), name.size());
  pair.add_string(tag::LabelPair::value, value.data(), value.size());
}

void add_exemplar(Builder<tag::Bucket>& bucket, const Exemplar& exemplar) {
  Builder<tag::Exemplar> out(bucket, tag::Bucket::exemplar);
  add_label(out, tag::Exemplar::label, "pid", std::to_string(exemplar.pid));
  add_label(out, tag::Exemplar::label, "tid", std::to_string(exemplar.tid));
  if (exemplar.arena) {
    add_label(out, tag::Exemplar::label, "arena", std::to_string(*exemplar.arena));
  }
  out.add_double(tag::Exemplar::value, static_cast<double>(exemplar.latency_ns) / 1e9);
  Builder<tag::Timestamp> time(out, tag::Exemplar::timestamp);
  time.add_int64(tag::Timestamp::seconds, exemplar.unix_ns / 1'000'000'000);
  time.add_int32(tag::Timestamp::nanos, static_cast<int32_t>(exemplar.unix_ns % 1'000'000'000));
}

void add_classic(Builder<tag::Histogram>& out, const HistogramPoint& point) {
  const auto counts = classic_counts(point.histogram);
  bool marked = false;
  const auto add = [&](uint64_t count, double bound, uint64_t bound_ns) {
    Builder<tag::Bucket> bucket(out, tag::Histogram::bucket);
    bucket.add_uint64(tag::Bucket::cumulative_count, count);
    bucket.add_double(tag::Bucket::upper_bound, bound);
    if (!marked && point.exemplar && point.exemplar->latency_ns <= bound_ns) {
      marked = true;
      add_exemplar(bucket, *point.exemplar);
    }
  };
  for (size_t i = 0; i < counts.size(); ++i) {
    const int exponent = classic_exponents[i];
    add(counts[i], std::ldexp(1.0, exponent),
        ledger::Histogram::upper_bound_ns(static_cast<unsigned>(exponent - JT_HIST_MIN_EXP) * 8));
  }
  add(count_of(point.histogram), std::numeric_limits<double>::infinity(), ~uint64_t{0});
}

void add_native(Builder<tag::Histogram>& out, const ledger::Histogram& histogram) {
  out.add_sint32(tag::Histogram::schema, JT_HIST_SCHEMA);
  out.add_double(tag::Histogram::zero_threshold, zero_threshold_seconds);
  out.add_uint64(tag::Histogram::zero_count, histogram.raw().buckets[0]);
  const std::vector<NativeSpan> spans = native_spans(histogram);
  int next = 0;  // an offset counts from the end of the span before
  for (const NativeSpan& span : spans) {
    Builder<tag::Span> one(out, tag::Histogram::positive_span);
    one.add_sint32(tag::Span::offset, span.first - next);
    one.add_uint32(tag::Span::length, static_cast<uint32_t>(span.counts.size()));
    next = span.first + static_cast<int>(span.counts.size());
  }
  std::vector<int64_t> deltas;
  int64_t before = 0;
  for (const NativeSpan& span : spans) {
    for (const uint64_t count : span.counts) {
      deltas.push_back(static_cast<int64_t>(count) - before);
      before = static_cast<int64_t>(count);
    }
  }
  out.add_packed_sint64(tag::Histogram::positive_delta, deltas.begin(), deltas.end());
}

void add_metric(Builder<tag::Family>& family, Type type, const Series& series) {
  Builder<tag::Metric> metric(family, tag::Family::metric);
  if (series.target) {
    for (const Label& label : *series.target) {
      add_label(metric, tag::Metric::label, label.name, label.value);
    }
  }
  for (const Label& label : series.labels) {
    add_label(metric, tag::Metric::label, label.name, label.value);
  }
  if (type == Type::histogram) {
    Builder<tag::Histogram> out(metric, tag::Metric::histogram);
    const ledger::Histogram& histogram = series.point->histogram;
    out.add_uint64(tag::Histogram::sample_count, count_of(histogram));
    out.add_double(tag::Histogram::sample_sum, static_cast<double>(histogram.sum_ns()) / 1e9);
    add_classic(out, *series.point);
    add_native(out, histogram);
  } else {
    Builder<tag::Value> value(metric, type == Type::counter ? tag::Metric::counter : tag::Metric::gauge);
    value.add_double(tag::Value::value, series.value);
  }
}

}  // namespace

std::string encode_protobuf(const Exposition& exposition) {
  std::string out;
  for (const Family& family : exposition.families) {
    if (family.series.empty()) {
      continue;
    }
    std::string body;
    Builder<tag::Family> builder(body);
    builder.add_string(tag::Family::name, sample_name(family));
    builder.add_string(tag::Family::help, family.help.data(), family.help.size());
    builder.add_enum(tag::Family::type, type_number(family.type));
    for (const Series& series : family.series) {
      add_metric(builder, family.type, series);
    }
    protozero::write_varint(std::back_inserter(out), body.size());
    out += body;
  }
  return out;
}

}  // namespace jemtrace::serve
