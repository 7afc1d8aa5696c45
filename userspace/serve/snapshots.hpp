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
  Snapshots();

  /// The latest one; waits up to `patience_ms` for a new one if that is older than `max_age_ms`. nullptr:
  /// there is none yet.
  std::shared_ptr<const Exposition> get(uint64_t max_age_ms, uint64_t patience_ms);
  /// The same, encoded; once for all who want the same format of the same snapshot.
  std::shared_ptr<const std::string> get_encoded(Format format, uint64_t max_age_ms, uint64_t patience_ms);

  /// For the maker: readable while somebody waits.
  [[nodiscard]] int wanted_fd() const { return wanted_.get(); }
  void publish(Exposition exposition);

 private:
  Fd wanted_;
  std::mutex mutex_;
  std::condition_variable published_;
  std::shared_ptr<const Exposition> latest_;
  std::array<std::shared_ptr<const std::string>, format_count> encoded_;  // of `latest_`
};

}  // namespace jemtrace::serve
