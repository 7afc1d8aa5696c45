#pragma once

#include <sys/types.h>

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "util/fd.hpp"
#include "util/result.hpp"

namespace jemtrace::collect {

/// A command that is started only when everything is in place to trace it.
class Launch {
 public:
  /// Forks; the child waits. Its pid is known, exec has not happened. `environment`: added to ours.
  static Result<Launch> prepare(std::vector<std::string> command,
                                const std::map<std::string, std::string>& environment = {});
  Launch(Launch&&) = default;
  Launch& operator=(Launch&&) = default;
  /// A child that was never let go is killed.
  ~Launch();

  /// Lets the child exec. Errc::cannot_run.
  Status go();
  [[nodiscard]] pid_t pid() const { return pid_; }
  /// Becomes readable when the command ends.
  [[nodiscard]] int pidfd() const { return pidfd_.get(); }
  /// Its exit status as a shell gives it (128 + signal when killed); nullopt while it runs.
  std::optional<int> exit_status();

 private:
  Launch() = default;
  std::vector<std::string> command_;
  pid_t pid_ = -1;
  Fd pidfd_;
  Fd start_;   // a byte written here lets the child go
  Fd failed_;  // errno of its exec comes back here, or the end of file
  std::optional<int> status_;
};

}  // namespace jemtrace::collect
