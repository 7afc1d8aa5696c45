#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

namespace jemtrace::locate::recover {

/// General registers by their number in machine code.
enum Register : uint8_t { rax, rcx, rdx, rbx, rsp, rbp, rsi, rdi, r8, r9, no_register = 255 };

/// What the analysis asks of an x86-64 instruction, and no more.
struct Instruction {
  enum class Kind : uint8_t { other, call, jump, branch, ret, syscall };
  enum class Move : uint8_t { none, constant, copy, load, store, push_constant, pop };

  uint64_t vaddr = 0;
  uint8_t size = 0;
  Kind kind = Kind::other;
  Move move = Move::none;
  uint8_t to = no_register, from = no_register;  // of a move; `from` also of an indirect call
  uint8_t base = no_register;                    // of a memory operand without index
  bool indexed = false;                          // its memory operand has an index
  bool has_memory = false;
  bool stores_constant = false;    // mov [memory], constant
  bool tests_pointer = false;      // test rax,rax
  uint16_t reads = 0, writes = 0;  // general registers, as bits
  int64_t displacement = 0;        // of the memory operand with `base`, or with an index
  uint8_t array = no_register;     // base of the memory operand with an index; no_register: an address
  uint8_t scale = 0;               // and what the index is multiplied by
  uint8_t reads_bytes = 0;         // of its memory operand
  bool takes_address = false;      // lea
  bool adds_constant = false;      // add register, immediate
  uint64_t target = 0;             // of a direct call, jump or branch
  uint64_t address = 0;            // rip-relative or absolute memory operand
  std::optional<uint64_t> immediate;

  [[nodiscard]] uint64_t next() const { return vaddr + size; }
};

/// Decodes linearly. Stops at what is no instruction, and after `limit` of them.
std::vector<Instruction> decode(std::span<const uint8_t> code, uint64_t vaddr, size_t limit = SIZE_MAX);

}  // namespace jemtrace::locate::recover
