#pragma once

#include <signal.h>

#include "util/fd.hpp"

namespace jemtrace::cli {

/// SIGINT, SIGTERM and (unless ignored) SIGHUP as something to poll for. The second one kills, as it is no
/// longer blocked then.
class Signals {
 public:
  Signals();
  ~Signals();
  Signals(const Signals&) = delete;
  Signals& operator=(const Signals&) = delete;
  [[nodiscard]] int fd() const { return fd_.get(); }
  /// True when one came; from then on they act as usual.
  bool take();

 private:
  bool read();

  sigset_t old_{};
  Fd fd_;
};

}  // namespace jemtrace::cli
