#pragma once

#include <CLI/CLI.hpp>
#include <chrono>
#include <optional>
#include <string>

#include "util/result.hpp"

namespace jemtrace::cli {

/// How serve serves.
struct ServeOptions {
  std::string listen = "127.0.0.1:9738";
  std::string token_file, tls_certificate, tls_key;  // empty: none
  bool insecure = false;                             // whoever can connect may read
  size_t max_targets = 500;
  bool pid_label = false;
  std::string otlp;  // URL; empty: nothing is pushed
  bool otlp_delta = false;
  std::chrono::milliseconds otlp_interval{60'000};
};

/// As the user typed them.
struct RawServe {
  std::string listen, token_file, tls_certificate, tls_key, otlp, temporality = "cumulative", otlp_interval;
  size_t max_targets = 500;
  bool insecure = false, pid_label = false;
};

void add_serve_options(CLI::App& app, RawServe& raw);
Result<ServeOptions> check_serve(const RawServe& raw);

}  // namespace jemtrace::cli
