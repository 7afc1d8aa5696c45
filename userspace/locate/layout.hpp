#pragma once

#include <cstdint>
#include <optional>
#include <span>

#include "locate/elf_file.hpp"
#include "locate/symbols.hpp"
#include "locate/version.hpp"

namespace jemtrace::locate {

/// Where the state and the arena are in ecache_t or extents_t; 0: unknown.
struct CacheFields {
  uint32_t state_offset = 0, ind_offset = 0;
};

/// The offset in "mov disp(%rdi),%eax; ret", which is all of extents_state_get.
std::optional<uint32_t> getter_offset(std::span<const uint8_t> code);

/// Whether the code of a function has an operand in memory at this distance from a register.
bool uses_displacement(std::span<const uint8_t> code, int64_t displacement);

CacheFields cache_layout(const ElfFile& file, const Symbols& symbols, Family family);

}  // namespace jemtrace::locate
