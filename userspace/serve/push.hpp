#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <memory>
#include <string>

#include "serve/accounts.hpp"
#include "serve/http_client.hpp"
#include "serve/otlp.hpp"
#include "serve/snapshots.hpp"

namespace jemtrace::serve {

/// What waits for a collector that does not answer, in bounded memory. Not thread-safe.
///
/// Cumulative: each point stands for itself, the oldest ones are dropped. Delta: nothing is encoded before it
/// is sent, and what was not taken is part of the next one, so that nothing is lost.
class Outbox {
 public:
  Outbox(bool delta, size_t max_bytes, Resource resource)
      : delta_(delta), max_bytes_(max_bytes), resource_(std::move(resource)) {}

  void put(const std::shared_ptr<const Exposition>& now);
  /// What to send next; nullptr: nothing.
  [[nodiscard]] const std::string* front();
  /// It was taken, or refused for good.
  void pop();

  [[nodiscard]] size_t waiting() const { return waiting_.size(); }
  [[nodiscard]] size_t bytes() const { return bytes_; }
  [[nodiscard]] uint64_t dropped() const { return dropped_; }

 private:
  bool delta_;
  size_t max_bytes_;
  Resource resource_;
  std::deque<std::string> waiting_;
  std::shared_ptr<const Exposition> latest_, sending_, taken_;  // delta
  size_t bytes_ = 0;
  uint64_t dropped_ = 0;
};

/// How long to wait after the n-th failure in a row: 1 s, 2 s, 4 s, ... 60 s, less up to a quarter by
/// `chance` (0 to 1), so that a fleet does not come back all at once.
uint64_t backoff_ms(unsigned failures, double chance);

/// Pushes to an OpenTelemetry collector until `stop` is readable. For a thread of its own.
class Pusher {
 public:
  struct Options {
    Url url;
    bool delta = false;
    uint64_t interval_ms = 60'000;
    size_t queue_bytes = size_t{8} << 20;
    Resource resource;
  };
  Pusher(Options options, Snapshots& snapshots) : options_(std::move(options)), snapshots_(snapshots) {}
  void run(int stop);
  /// May be asked at any time.
  [[nodiscard]] Own::Push counts() const;

 private:
  /// False: to be tried again after retry_ms_.
  bool send(const std::string& body, int stop);
  void complain(const std::string& what);

  Options options_;
  Snapshots& snapshots_;
  std::atomic<uint64_t> sent_{0}, failed_{0}, refused_{0}, dropped_{0}, queued_{0}, queue_bytes_{0};
  unsigned failures_ = 0;  // in a row
  uint64_t retry_ms_ = 0;
};

}  // namespace jemtrace::serve
