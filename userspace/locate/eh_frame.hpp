#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "jemtrace/abi.h"
#include "locate/elf_file.hpp"
#include "util/result.hpp"

namespace jemtrace::locate {

/// How to find the caller's frame at one instruction.
struct FrameRule {
  jt_cfa cfa_register = JT_CFA_NONE;
  int32_t cfa_offset = 0;  // CFA minus the register; 0 to 64 kB
  int32_t saved_bp = 0;    // where the caller's rbp is, minus the CFA; 0: still in rbp
};

/// The call frame information of an x86-64 file, from .eh_frame.
///
/// Not libdw's: dwarf_cfi_addrframe follows the offsets of a hostile .eh_frame_hdr and runs programs of any
/// length with a copy of all registers for each DW_CFA_remember_state. Two rules (CFA, rbp) are all that a
/// walk needs; this one reads each entry once and is bounded throughout. The unit test compares it with
/// libdw, address by address.
class CallFrames {
 public:
  /// Finds .eh_frame by its section, or, without section headers, by PT_GNU_EH_FRAME.
  static Result<CallFrames> read(const ElfFile& file);

  /// A function as the unwinder knows it, sorted by address.
  struct Entry {
    uint64_t start = 0, size = 0;
    uint32_t instructions = 0, instructions_end = 0;  // offsets into the section
    uint32_t cie = 0;                                 // index
  };
  [[nodiscard]] const std::vector<Entry>& entries() const { return entries_; }
  [[nodiscard]] const Entry* entry_of(uint64_t vaddr) const;

  /// The rule when the instruction at `vaddr` is about to execute; nullopt when no entry covers it.
  [[nodiscard]] std::optional<FrameRule> rule_at(uint64_t vaddr) const;

 private:
  struct Cie {
    uint32_t offset = 0;
    uint64_t code_alignment = 1;
    int64_t data_alignment = 1;
    uint64_t return_register = 16;
    uint8_t pointer_encoding = 0;
    bool has_augmentation = false;
    bool sound = false;
    bool signal_frame = false;
    uint32_t instructions = 0, instructions_end = 0;
  };

  void parse();
  std::optional<uint32_t> cie_at(uint32_t offset);
  Cie parse_cie(uint32_t offset) const;

  Bytes bytes_;
  uint64_t vaddr_ = 0;
  std::vector<Cie> cies_;  // by offset
  std::vector<Entry> entries_;
};

}  // namespace jemtrace::locate
