#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <string>

#include "serve/http_message.hpp"
#include "serve/snapshots.hpp"

namespace jemtrace::serve {

/// What is at which path. Its call operator is a Server::Handler.
class Pages {
 public:
  /// `token`: what /metrics wants as a bearer token; empty: nothing.
  Pages(Snapshots& snapshots, std::string token, std::string version)
      : snapshots_(snapshots), token_(std::move(token)), version_(std::move(version)) {}

  Response operator()(const Request& request);

  /// Answered scrapes by Format. May be read at any time.
  [[nodiscard]] std::array<uint64_t, format_count> scrapes() const;

 private:
  [[nodiscard]] Response metrics(const Request& request);
  [[nodiscard]] Response start_page() const;

  Snapshots& snapshots_;
  std::string token_, version_;
  std::array<std::atomic<uint64_t>, format_count> scrapes_{};
};

}  // namespace jemtrace::serve
