#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "locate/recover/instructions.hpp"

namespace jemtrace::locate::recover {

/// A transfer of control out of a piece of code, as the code alone shows it.
struct Transfer {
  uint64_t vaddr = 0;             // of the instruction
  uint64_t return_vaddr = 0;      // 0: a jump, nothing comes back here
  uint64_t target = 0;            // direct; 0: indirect
  uint64_t pointer = 0;           // indirect through this word of memory; 0: otherwise
  std::optional<uint8_t> member;  // indirect through the n-th pointer of a struct
  bool conditional = false;
  bool result_tested = false;                 // for NULL
  bool system_call = false;                   // the instruction syscall itself; `number` is which
  std::optional<uint32_t> number;             // eax
  std::optional<uint32_t> rdi, rdx, rcx, r9;  // constant arguments
  bool rcx_may_be_one = false;                // on one of the paths that meet before it
  std::optional<uint32_t> stacked;            // and the first one on the stack
};

struct Scan {
  std::vector<Transfer> transfers;
  std::vector<uint64_t> references;  // addresses the code mentions, ascending, unique
  std::vector<uint32_t> members;     // distances from a register as of members of large structs, likewise
  uint16_t arguments = 0;            // registers read before they are written, up to the first call
  bool whole = false;                // decoded to the last byte
};

/// Reads a function's code. Constants are followed within a block, members of structs along the text:
/// registers and spills to the stack that nothing has overwritten since.
Scan scan(std::span<const uint8_t> code, uint64_t vaddr, bool absolute_addresses);

}  // namespace jemtrace::locate::recover
