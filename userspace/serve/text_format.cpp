// The two text formats. They differ in little: OpenMetrics names a counter without its "_total", has units
// and exemplars, and ends with "# EOF".
#include <array>
#include <charconv>
#include <cmath>

#include "serve/buckets.hpp"
#include "serve/formats.hpp"

namespace jemtrace::serve {
namespace {

void append_count(std::string& out, uint64_t count) {
  std::array<char, 20> digits;
  const auto end = std::to_chars(digits.data(), digits.data() + digits.size(), count).ptr;
  out.append(digits.data(), end);
}

/// What may not stand in a quoted label value. The rest is harmless by Label's promise.
void append_quoted(std::string& out, std::string_view value) {
  for (const char c : value) {
    switch (c) {
      case '"':
        out += "\\\"";
        break;
      case '\\':
        out += "\\\\";
        break;
      case '\n':
        out += "\\n";
        break;
      default:
        out += c;
    }
  }
}

void append_label(std::string& out, const Label& label) {
  out += out.empty() ? "" : ",";
  out += label.name;
  out += "=\"";
  append_quoted(out, label.value);
  out += '"';
}

/// Without braces: `name="x",cgroup="/y"`.
std::string label_list(const Series& series) {
  std::string out;
  if (series.target) {
    for (const Label& label : *series.target) {
      append_label(out, label);
    }
  }
  for (const Label& label : series.labels) {
    append_label(out, label);
  }
  return out;
}

/// `le` as Prometheus itself writes it when it reads protobuf ("1.0"), so that the format makes no other
/// series.
std::string bound_text(int exponent) {
  std::string out;
  append_number(out, std::ldexp(1.0, exponent));
  return out.find_first_of(".e") == std::string::npos ? out + ".0" : out;
}

class Text {
 public:
  explicit Text(bool openmetrics) : openmetrics_(openmetrics) {
    for (size_t i = 0; i < bounds_.size(); ++i) {
      bounds_[i] = ",le=\"" + bound_text(classic_exponents[i]) + "\"} ";
    }
  }

  void family(const Family& family) {
    const std::string sample = sample_name(family);
    const std::string name(openmetrics_ ? std::string(family.name) : sample);
    meta("# HELP ", name, family.help);
    meta("# TYPE ", name, type_name(family.type));
    if (openmetrics_ && !family.unit.empty()) {
      meta("# UNIT ", name, family.unit);
    }
    for (const Series& series : family.series) {
      const std::string labels = label_list(series);
      if (family.type == Type::histogram) {
        histogram(family.name, labels, *series.point);
      } else {
        line(sample, "", labels);
        append_number(out_, series.value);
        out_ += '\n';
      }
    }
  }

  std::string take() {
    out_ += openmetrics_ ? "# EOF\n" : "";
    return std::move(out_);
  }

 private:
  void meta(const char* kind, const std::string& name, std::string_view text) {
    out_ += kind;
    out_ += name;
    out_ += ' ';
    out_ += text;
    out_ += '\n';
  }

  [[nodiscard]] const char* type_name(Type type) const {
    switch (type) {
      case Type::counter:
        return "counter";
      case Type::info:
        return openmetrics_ ? "info" : "gauge";
      case Type::histogram:
        return "histogram";
      case Type::gauge:
        break;
    }
    return "gauge";
  }

  void line(std::string_view name, const char* suffix, const std::string& labels) {
    out_ += name;
    out_ += suffix;
    if (!labels.empty()) {
      out_ += '{';
      out_ += labels;
      out_ += '}';
    }
    out_ += ' ';
  }

  void histogram(std::string_view name, const std::string& labels, const HistogramPoint& point) {
    const std::string prefix = std::string(name) + "_bucket{" + labels;
    const auto counts = classic_counts(point.histogram);
    bool marked = false;
    for (size_t i = 0; i < counts.size(); ++i) {
      out_ += prefix;
      out_ += bounds_[i];
      append_count(out_, counts[i]);
      mark(point, classic_exponents[i], marked);
      out_ += '\n';
    }
    const uint64_t count = count_of(point.histogram);
    out_ += prefix;
    out_ += ",le=\"+Inf\"} ";
    append_count(out_, count);
    mark(point, JT_HIST_MAX_EXP + 1, marked);
    out_ += '\n';
    line(name, "_sum", labels);
    append_number(out_, static_cast<double>(point.histogram.sum_ns()) / 1e9);
    out_ += '\n';
    line(name, "_count", labels);
    append_count(out_, count);
    out_ += '\n';
  }

  /// The exemplar stands with the bucket that its purge is in.
  void mark(const HistogramPoint& point, int exponent, bool& marked) {
    if (!openmetrics_ || marked || !point.exemplar) {
      return;
    }
    const Exemplar& exemplar = *point.exemplar;
    const auto bucket = static_cast<unsigned>(exponent - JT_HIST_MIN_EXP) * 8;
    if (exponent <= JT_HIST_MAX_EXP && exemplar.latency_ns > ledger::Histogram::upper_bound_ns(bucket)) {
      return;
    }
    marked = true;
    out_ += " # {pid=\"" + std::to_string(exemplar.pid) + "\",tid=\"" + std::to_string(exemplar.tid) + '"';
    if (exemplar.arena) {
      out_ += ",arena=\"" + std::to_string(*exemplar.arena) + '"';
    }
    out_ += "} ";
    append_number(out_, static_cast<double>(exemplar.latency_ns) / 1e9);
    out_ += ' ';
    const int64_t unix_ms = exemplar.unix_ns / 1'000'000;
    append_number(out_, static_cast<double>(unix_ms) / 1e3);
  }

  bool openmetrics_;
  std::string out_;
  std::array<std::string, classic_exponents.size()> bounds_;
};

}  // namespace

void append_number(std::string& out, double value) {
  constexpr double exact = 9007199254740992.0;  // 2^53
  if (value >= 0 && value < exact && std::floor(value) == value) {
    append_count(out, static_cast<uint64_t>(value));
    return;
  }
  std::array<char, 32> digits;
  const auto end = std::to_chars(digits.data(), digits.data() + digits.size(), value).ptr;
  out.append(digits.data(), end);
}

std::string sample_name(const Family& family) {
  std::string name(family.name);
  if (family.type == Type::counter) {
    name += "_total";
  } else if (family.type == Type::info) {
    name += "_info";
  }
  return name;
}

std::string encode_text(const Exposition& exposition, bool openmetrics) {
  Text text(openmetrics);
  for (const Family& family : exposition.families) {
    if (!family.series.empty()) {
      text.family(family);
    }
  }
  return text.take();
}

}  // namespace jemtrace::serve
