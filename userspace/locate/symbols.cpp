#include "locate/symbols.hpp"

#include <algorithm>
#include <cstring>
#include <set>

#include "locate/debug_files.hpp"

namespace jemtrace::locate {
namespace {

constexpr uint64_t max_symbol_table = uint64_t{512} << 20;  // ClickHouse: ~200 MB of names
constexpr uint64_t max_function_size = uint64_t{1} << 20;   // the largest seen: 36 kB (pa_alloc in rustc)
constexpr uint64_t arenas_size = 4095 * 8;
constexpr size_t max_functions = 4000;  // of the table's ~200 names

/// "mmap" for mmap, __mmap, mmap64: only the ones that tell a trim from a zero fill.
std::string_view system_call(std::string_view symbol) {
  while (symbol.starts_with('_')) {
    symbol.remove_prefix(1);
  }
  if (symbol == "mmap" || symbol == "mmap64") {
    return "mmap";
  }
  return symbol == "munmap" ? "munmap" : std::string_view{};
}

/// The prefix of a public function as *mallctl, but not of a function that only mentions it.
std::optional<std::string> api_prefix(std::string_view symbol, std::string_view api = "mallctl") {
  if (!symbol.ends_with(api)) {
    return std::nullopt;
  }
  const std::string_view prefix = symbol.substr(0, symbol.size() - api.size());
  // "do_mallctl" and the like belong to others.
  const bool sound = prefix.empty() || prefix.ends_with("je_") || prefix.ends_with("rjem_");
  return sound ? std::optional(std::string(prefix)) : std::nullopt;
}

/// A function that only jemalloc has and every 5.x has, under its private prefix.
bool is_anchor(std::string_view role) {
  return role == "extent_dalloc_wrapper" || role == "ecache_evict" || role == "extents_evict" ||
         role == "pac_decay_to_limit" || role == "arena_decay_to_limit";
}

}  // namespace

void Symbols::add_table(const ElfFile& file, const ElfFile::Section& table, const std::string& found_by) {
  const uint32_t link = table.header.sh_link;
  if (link >= file.sections().size()) {
    return;
  }
  const auto names = file.contents(file.sections()[link], max_symbol_table);
  const auto bytes = file.contents(table, max_symbol_table);
  if (!names || !bytes) {
    return;
  }
  for (uint64_t at = 0; at + sizeof(Elf64_Sym) <= bytes->size(); at += sizeof(Elf64_Sym)) {
    Elf64_Sym symbol;
    std::memcpy(&symbol, bytes->data() + at, sizeof symbol);
    const unsigned type = ELF64_ST_TYPE(symbol.st_info);
    if (type == STT_OBJECT && symbol.st_size == arenas_size && symbol.st_shndx != SHN_UNDEF) {
      const std::string_view text = string_at(*names, symbol.st_name);
      arenas = text == "arenas" || text.ends_with("je_arenas") ? symbol.st_value : arenas;
    }
    if (symbol.st_shndx == SHN_UNDEF || (type != STT_FUNC && type != STT_NOTYPE && type != STT_GNU_IFUNC)) {
      continue;
    }
    const std::string_view text = string_at(*names, symbol.st_name);
    if (text.size() < 4 || text.size() > 256) {
      continue;
    }
    if (const std::string_view call = system_call(text); !call.empty()) {
      system_calls.emplace(symbol.st_value, call);
      continue;
    }
    if (const auto prefix = api_prefix(text); prefix && !public_api) {
      public_api = true;
      public_prefix = *prefix;
      public_vaddr = symbol.st_value;
    }
    for (const char* function : {"mallctl", "mallctlbymib", "mallctlnametomib", "malloc_stats_print"}) {
      if (api_prefix(text, function)) {
        api.emplace(function, symbol.st_value);
      }
    }
    if (text.ends_with("extents_state_get")) {
      state_getter = symbol.st_value;
      state_getter_size = symbol.st_size;
    }
    const auto name = spelled_name(text);
    if (!name || functions.size() >= max_functions || symbol.st_size > max_function_size) {
      continue;
    }
    functions.push_back({std::string(text),
                         std::string(name->prefix),
                         find_role(name->role),
                         name->variant,
                         symbol.st_value,
                         symbol.st_size,
                         found_by,
                         {}});
  }
}

void Symbols::finish() {
  std::set<std::string> prefixes;
  for (const Function& function : functions) {
    if (is_anchor(function.entry->role)) {
      any_private = true;
      prefixes.insert(function.prefix);
    }
  }
  // Static functions keep their plain names in a prefixed build, so "" stays allowed.
  prefixes.insert("");
  std::erase_if(functions,
                [&](const Function& f) { return f.entry->jemalloc && !prefixes.contains(f.prefix); });
  std::stable_sort(functions.begin(), functions.end(),
                   [](const Function& a, const Function& b) { return a.vaddr < b.vaddr; });
  // .dynsym repeats .symtab.
  functions.erase(std::unique(functions.begin(), functions.end(),
                              [](const Function& a, const Function& b) {
                                return a.vaddr == b.vaddr && a.symbol == b.symbol;
                              }),
                  functions.end());
}

Symbols read_symbols(const ElfFile& file, const std::string& build_id, const Options& options,
                     std::vector<std::string>& notes) {
  Symbols symbols;
  if (const auto* table = file.section_of_type(SHT_SYMTAB)) {
    symbols.add_table(file, *table, "symtab");
  } else {
    for (const DebugFile& debug : debug_files(file, build_id, options, notes)) {
      if (const auto* separate = debug.elf.section_of_type(SHT_SYMTAB)) {
        symbols.add_table(debug.elf, *separate, debug.found_by);
        break;
      }
    }
  }
  if (const auto* dynamic = file.section_of_type(SHT_DYNSYM)) {
    symbols.add_table(file, *dynamic, "dynsym");
  }
  symbols.finish();
  return symbols;
}

}  // namespace jemtrace::locate
