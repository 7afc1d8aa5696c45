#pragma once

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "util/fd.hpp"
#include "util/result.hpp"

namespace jemtrace {

/// Reads a whole file, at most `limit` bytes of it (Errc::too_large beyond): files of /proc have no size to
/// trust.
Result<std::string> read_file(const std::string& path, size_t limit = size_t{64} << 20);
Result<std::string> read_all(int fd, const std::string& path, size_t limit);

Result<Fd> open_file(const std::string& path, int flags);

/// Reads exactly `size` bytes at `offset`; Errc::malformed when the file is shorter.
Status read_at(int fd, uint64_t offset, void* buffer, size_t size);

/// Where /proc is: a test puts a folder of files there.
class ProcRoot {
 public:
  explicit ProcRoot(std::string path = "/proc") : path_(std::move(path)) {}
  [[nodiscard]] const std::string& path() const { return path_; }
  [[nodiscard]] std::string of(pid_t pid, const std::string& name) const;  // /proc/PID/name
  /// All numeric entries, ascending.
  [[nodiscard]] Result<std::vector<pid_t>> pids() const;
  [[nodiscard]] Result<std::string> read(pid_t pid, const std::string& name,
                                         size_t limit = size_t{64} << 20) const;
  /// The target of a symbolic link such as "exe" or "cwd", untrusted.
  [[nodiscard]] Result<std::string> link(pid_t pid, const std::string& name) const;

 private:
  std::string path_;
};

}  // namespace jemtrace
