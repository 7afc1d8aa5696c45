#pragma once

#include <sys/types.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "util/file.hpp"

namespace jemtrace::discover {

/// One line of /proc/PID/maps (proc_pid_maps(5)). Addresses are in the target's space.
struct Mapping {
  uint64_t start = 0, end = 0;  // [start, end)
  uint64_t file_offset = 0;     // of `start` in the mapped file
  bool executable = false;
  uint32_t device_major = 0,
           device_minor = 0;  // as the kernel names it: overlayfs may show another than stat(2)
  uint64_t inode = 0;         // 0: no file behind it
  std::string_view path;      // untrusted: compare it, print it escaped, never open it
};

/// Parses one line without its newline. nullopt: not a mapping line.
std::optional<Mapping> parse_mapping(std::string_view line);

/// The mappings of a process, with the text that their paths point into.
class Mappings {
 public:
  /// At most 64 MB of text, 600 000 mappings: Errc::too_large beyond. Errc::gone when the process has exited.
  static Result<Mappings> read(const ProcRoot& proc, pid_t pid);
  explicit Mappings(std::string text);
  Mappings(Mappings&&) = default;
  Mappings& operator=(Mappings&&) = default;

  [[nodiscard]] const std::vector<Mapping>& all() const { return all_; }

 private:
  std::unique_ptr<const std::string> text_;  // on the heap, so that moving keeps the paths valid
  std::vector<Mapping> all_;
};

/// "/proc/PID/map_files/START-END": opens just the file that is mapped there, deleted or replaced ones too.
std::string map_file_path(const ProcRoot& proc, pid_t pid, const Mapping& mapping);

}  // namespace jemtrace::discover
