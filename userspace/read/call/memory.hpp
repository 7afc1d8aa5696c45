#pragma once

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "util/result.hpp"

namespace jemtrace::read {

/// The memory of a process, through process_vm_readv(2) and process_vm_writev(2).
class TargetMemory {
 public:
  explicit TargetMemory(pid_t pid) : pid_(pid) {}

  /// As many bytes as can be read without a gap, at most `size`.
  [[nodiscard]] std::vector<uint8_t> read_some(uint64_t address, size_t size) const;
  [[nodiscard]] Status read(uint64_t address, void* to, size_t size) const;
  [[nodiscard]] Status write(uint64_t address, std::span<const uint8_t> bytes) const;
  /// Up to its NUL, at most `limit` bytes.
  [[nodiscard]] Result<std::string> read_text(uint64_t address, size_t limit) const;

 private:
  pid_t pid_;
};

}  // namespace jemtrace::read
