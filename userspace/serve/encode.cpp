#include "serve/encode.hpp"

#include <algorithm>
#include <array>
#include <cctype>
#include <charconv>
#include <map>

#include "serve/formats.hpp"

namespace jemtrace::serve {
namespace {

std::string_view trim(std::string_view text) {
  const auto first = text.find_first_not_of(" \t");
  if (first == std::string_view::npos) {
    return {};
  }
  return text.substr(first, text.find_last_not_of(" \t") - first + 1);
}

std::string lower(std::string_view text) {
  std::string out(text);
  std::transform(out.begin(), out.end(), out.begin(),
                 [](char c) { return static_cast<char>(std::tolower(static_cast<unsigned char>(c))); });
  return out;
}

/// Cuts off what is before `separator`.
std::string_view next_part(std::string_view& text, char separator) {
  const auto at = text.find(separator);
  const std::string_view part = text.substr(0, at);
  text = at == std::string_view::npos ? std::string_view{} : text.substr(at + 1);
  return trim(part);
}

/// "text/plain;version=0.0.4;q=0.5"
struct MediaRange {
  std::string type;
  std::map<std::string, std::string> parameters;
  double q = 1;
};

MediaRange parse_range(std::string_view text) {
  MediaRange range;
  range.type = lower(next_part(text, ';'));
  while (!text.empty()) {
    std::string_view value = next_part(text, ';');
    const std::string key = lower(next_part(value, '='));
    if (value.size() >= 2 && value.front() == '"' && value.back() == '"') {
      value = value.substr(1, value.size() - 2);
    }
    if (key == "q") {
      const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), range.q);
      if (error != std::errc{} || end != value.data() + value.size() || !(range.q >= 0 && range.q <= 1)) {
        range.q = 0;
      }
    } else {
      range.parameters[key] = std::string(value);
    }
  }
  return range;
}

bool is(const MediaRange& range, const char* key, std::string_view wanted) {
  const auto found = range.parameters.find(key);
  return found != range.parameters.end() && found->second == wanted;
}

bool is_or_absent(const MediaRange& range, const char* key, std::string_view wanted) {
  return !range.parameters.contains(key) || is(range, key, wanted);
}

/// nullptr-like: none of ours.
bool stands_for(const MediaRange& range, Format format) {
  switch (format) {
    case Format::protobuf:
      return range.type == "application/vnd.google.protobuf" && is(range, "encoding", "delimited") &&
             is(range, "proto", "io.prometheus.client.MetricFamily");
    case Format::openmetrics:
      return range.type == "application/openmetrics-text" &&
             (is_or_absent(range, "version", "1.0.0") || is(range, "version", "0.0.1"));
    case Format::text:
      break;
  }
  return (range.type == "text/plain" && is_or_absent(range, "version", "0.0.4")) || range.type == "text/*" ||
         range.type == "*/*";
}

}  // namespace

Format negotiate(std::string_view accept) {
  constexpr size_t most_ranges = 32;
  Format best = Format::text;
  double best_q = 0;
  for (size_t i = 0; i < most_ranges && !accept.empty(); ++i) {
    const MediaRange range = parse_range(next_part(accept, ','));
    for (const Format format : {Format::text, Format::openmetrics, Format::protobuf}) {
      if (range.q > best_q && stands_for(range, format)) {
        best = format;
        best_q = range.q;
      }
    }
  }
  return best;
}

const char* content_type(Format format) {
  switch (format) {
    case Format::openmetrics:
      return "application/openmetrics-text; version=1.0.0; charset=utf-8";
    case Format::protobuf:
      return "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited";
    case Format::text:
      break;
  }
  return "text/plain; version=0.0.4; charset=utf-8";
}

const char* name(Format format) {
  constexpr std::array<const char*, format_count> names = {"text", "openmetrics", "protobuf"};
  return names[static_cast<size_t>(format)];
}

std::string encode(const Exposition& exposition, Format format) {
  return format == Format::protobuf ? encode_protobuf(exposition)
                                    : encode_text(exposition, format == Format::openmetrics);
}

}  // namespace jemtrace::serve
