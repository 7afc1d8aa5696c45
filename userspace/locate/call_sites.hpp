#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "locate/eh_frame.hpp"
#include "locate/elf_file.hpp"
#include "locate/image.hpp"
#include "locate/symbols.hpp"

namespace jemtrace::locate {

/// A call instruction in a piece of code.
struct Call {
  uint64_t vaddr = 0;         // of the instruction
  uint64_t return_vaddr = 0;  // of the next one
  uint64_t target = 0;        // direct: the callee; 0 when it is in a register
  uint64_t slot = 0;          // through memory: the address of the pointer (-fno-plt); else 0
};

/// Decodes linearly; stops at what is no instruction.
std::vector<Call> find_calls(std::span<const uint8_t> code, uint64_t vaddr);

/// Names of the functions that calls through the PLT or a GOT slot lead to.
class Imports {
 public:
  static Imports read(const ElfFile& file);
  /// Empty when unknown.
  [[nodiscard]] std::string_view name_of_slot(uint64_t vaddr) const;
  /// `vaddr` may be a PLT stub: [endbr64] [bnd] jmp *slot(%rip).
  [[nodiscard]] std::string_view name_of_stub(const ElfFile& file, uint64_t vaddr) const;

 private:
  std::unordered_map<uint64_t, std::string> slots_;
};

/// What a call from a function of the table was for. Inlining merges functions of several purposes; the
/// callee tells them apart.
jt_purpose call_purpose(const RoleEntry& caller, std::string_view callee);

/// A jt_site for the call at a place with this frame.
jt_site site_at(jt_purpose purpose, jt_cause cause, const FrameRule& rule);

/// All call sites of the functions, ascending by return address, one per address.
std::vector<CallSite> find_call_sites(const ElfFile& file, const Symbols& symbols, const CallFrames& frames);

}  // namespace jemtrace::locate
