#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "locate/elf_file.hpp"
#include "locate/image.hpp"
#include "locate/roles.hpp"

namespace jemtrace::locate {

/// A function of the role table in a symbol table.
struct Function {
  std::string symbol;  // as spelled
  std::string prefix;  // "_rjem_je_"
  const RoleEntry* entry = nullptr;
  Variant variant = Variant::plain;
  uint64_t vaddr = 0, size = 0;
  std::string found_by;
  std::vector<std::string> evidence;  // of a function recovered without symbols
};

/// What the symbol tables of an image, and of its debug file, say.
struct Symbols {
  std::vector<Function> functions;  // ascending by address; one address may have several
  std::unordered_map<uint64_t, std::string>
      system_calls;                     // address of a C library function: "mmap", "munmap"
  bool public_api = false;              // a *mallctl is there
  std::string public_prefix;            // of *mallctl; "" also when nothing is known
  uint64_t public_vaddr = 0;            // of *mallctl, 0 when it is unknown
  std::map<std::string, uint64_t> api;  // mallctl, mallctlbymib, mallctlnametomib, malloc_stats_print
  uint64_t state_getter = 0;            // extents_state_get, with its size
  uint64_t state_getter_size = 0;
  uint64_t arenas = 0;       // the array of that name
  bool any_private = false;  // functions of the allocator's inside were found

  /// Adds a table's symbols; what is known already stays. `found_by`: "symtab", "minidebuginfo", ...
  void add_table(const ElfFile& file, const ElfFile::Section& table, const std::string& found_by);
  /// Sorts, drops what carries a private prefix of no jemalloc (a `base_new` of other software).
  void finish();
};

/// Symbols of `file`: .symtab, else a separate debug file or MiniDebugInfo, and .dynsym in any case. What
/// could not be used and why goes to `notes`.
Symbols read_symbols(const ElfFile& file, const std::string& build_id, const Options& options,
                     std::vector<std::string>& notes);

}  // namespace jemtrace::locate
