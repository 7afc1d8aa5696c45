#pragma once

#include <sys/types.h>

#include <cstdint>
#include <span>

#include "util/result.hpp"

namespace jemtrace::read {

/// The memory of a target, as bytes that nobody vouches for.
class Memory {
 public:
  struct Piece {
    uint64_t address = 0;
    std::span<uint8_t> into;
    bool whole = false;  // all of it was read
  };

  virtual ~Memory() = default;
  /// Reads what can be read of `pieces`, and says of each whether that was all. Fails when nothing of the
  /// process can be read any more: Errc::gone, Errc::denied.
  virtual Status read(std::span<Piece> pieces) const = 0;
};

/// Of a process, by process_vm_readv(2): it neither stops nor notices. `pid` in our namespace.
class ProcessMemory final : public Memory {
 public:
  explicit ProcessMemory(pid_t pid) : pid_(pid) {}
  Status read(std::span<Piece> pieces) const override;

 private:
  pid_t pid_;
};

}  // namespace jemtrace::read
