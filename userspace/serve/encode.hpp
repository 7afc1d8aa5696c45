#pragma once

#include <string>
#include <string_view>

#include "serve/exposition.hpp"

/// Expositions in the formats that Prometheus and its relatives read.
namespace jemtrace::serve {

enum class Format {
  text,         // Prometheus text 0.0.4: what everything understands
  openmetrics,  // 1.0.0: with exemplars
  protobuf,     // io.prometheus.client.MetricFamily, delimited: with native histograms beside the classic
                // buckets
};
constexpr size_t format_count = 3;

std::string encode(const Exposition& exposition, Format format);
const char* content_type(Format format);
const char* name(Format format);  // "text", "openmetrics", "protobuf"

/// What to send to who sent this Accept header (RFC 9110, 12.5.1): the format with the highest q. text, when
/// it is empty, asks for anything, makes no sense, or only for what we do not have.
Format negotiate(std::string_view accept);

}  // namespace jemtrace::serve
