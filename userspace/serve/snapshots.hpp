#pragma once

#include <array>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>

#include "serve/encode.hpp"
#include "serve/exposition.hpp"
#include "util/fd.hpp"

namespace jemtrace::serve {

/// Hands expositions from the thread that makes them to those that send them. One is made only when somebody
/// asks and the last one is old, so that many who ask cost no more than one.
class Snapshots {
 public:
  /// `stuck_after_ms`: longer than any look at new files takes.
  explicit Snapshots(uint64_t stuck_after_ms = 300'000);

  /// The latest one; waits up to `patience_ms` for a new one if that is older than `max_age_ms`. nullptr:
  /// there is none yet, or the maker is stuck: numbers that stand still would be taken for new ones.
  std::shared_ptr<const Exposition> get(uint64_t max_age_ms, uint64_t patience_ms);
  /// The same, encoded; once for all who want the same format of the same snapshot.
  std::shared_ptr<const std::string> get_encoded(Format format, uint64_t max_age_ms, uint64_t patience_ms);

  /// It was asked for a new one long ago, and has made none since.
  [[nodiscard]] bool stuck() const;

  /// For the maker: readable while somebody waits.
  [[nodiscard]] int wanted_fd() const { return wanted_.get(); }
  void publish(Exposition exposition);

 private:
  [[nodiscard]] bool stuck_locked() const;

  Fd wanted_;
  const uint64_t stuck_after_ns_;
  mutable std::mutex mutex_;
  uint64_t asked_ns_ = 0;  // the first time since the last one was made; 0: not
  std::condition_variable published_;
  std::shared_ptr<const Exposition> latest_;
  std::array<std::shared_ptr<const std::string>, format_count> encoded_;  // of `latest_`
};

}  // namespace jemtrace::serve
