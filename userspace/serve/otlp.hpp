#pragma once

#include <string>

#include "serve/exposition.hpp"

namespace jemtrace::serve {

/// Who says it: resource attributes.
struct Resource {
  std::string host, version;
};

/// An ExportMetricsServiceRequest (opentelemetry-proto 1.x). Names are those that a collector's Prometheus
/// exporter turns back into ours: without the unit, which goes into its own field.
///
/// `since`: nullptr: cumulative; else delta, what came after that older state of the same.
std::string encode_otlp(const Exposition& now, const Exposition* since, const Resource& resource);

}  // namespace jemtrace::serve
