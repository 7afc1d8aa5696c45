#include "locate/conf_symbols.hpp"

#include <algorithm>
#include <array>
#include <cstring>

namespace jemtrace::locate {
namespace {

constexpr uint64_t max_table = uint64_t{512} << 20;
constexpr size_t max_variables = 4;

/// "malloc_conf" for _rjem_malloc_conf; empty for all else.
std::string conf_name(std::string_view symbol) {
  for (const std::string_view name : {"malloc_conf", "malloc_conf_2_conf_harder"}) {
    if (symbol.ends_with(name)) {
      const std::string_view prefix = symbol.substr(0, symbol.size() - name.size());
      if (prefix.empty() || prefix.ends_with("je_") || prefix.ends_with("rjem_")) {
        return std::string(name);
      }
    }
  }
  return {};
}

/// A section with the one that it links to.
struct Tables {
  Bytes entries, linked;
};

std::optional<Tables> tables_of(const ElfFile& file, const ElfFile::Section& section, uint32_t linked) {
  if (linked >= file.sections().size()) {
    return std::nullopt;
  }
  auto entries = file.contents(section, max_table);
  auto other = file.contents(file.sections()[linked], max_table);
  if (!entries || !other) {
    return std::nullopt;
  }
  return Tables{std::move(*entries), std::move(*other)};
}

void add(std::vector<ConfVariable>& found, const std::string& name, uint64_t vaddr, bool through_got) {
  const bool known = std::any_of(found.begin(), found.end(),
                                 [&](const ConfVariable& variable) { return variable.name == name; });
  if (!known && found.size() < max_variables) {
    found.push_back({name, vaddr, through_got});
  }
}

void add_from_got(const ElfFile& file, std::vector<ConfVariable>& found) {
  for (const ElfFile::Section& section : file.sections()) {
    if (section.header.sh_type != SHT_RELA || section.header.sh_link >= file.sections().size()) {
      continue;
    }
    const ElfFile::Section& symbols = file.sections()[section.header.sh_link];
    const auto relocations = tables_of(file, section, section.header.sh_link);
    const auto names = tables_of(file, symbols, symbols.header.sh_link);
    if (symbols.header.sh_type != SHT_DYNSYM || !relocations || !names) {
      continue;
    }
    for (size_t at = 0; at + sizeof(Elf64_Rela) <= relocations->entries.size(); at += sizeof(Elf64_Rela)) {
      Elf64_Rela relocation;
      std::memcpy(&relocation, relocations->entries.data() + at, sizeof relocation);
      const uint64_t index = ELF64_R_SYM(relocation.r_info);
      if (ELF64_R_TYPE(relocation.r_info) != R_X86_64_GLOB_DAT ||
          (index + 1) * sizeof(Elf64_Sym) > names->entries.size()) {
        continue;
      }
      Elf64_Sym symbol;
      std::memcpy(&symbol, names->entries.data() + index * sizeof symbol, sizeof symbol);
      if (const std::string name = conf_name(string_at(names->linked, symbol.st_name)); !name.empty()) {
        add(found, name, relocation.r_offset, true);
      }
    }
  }
}

void add_from_symbols(const ElfFile& file, std::vector<ConfVariable>& found) {
  for (const ElfFile::Section& section : file.sections()) {
    if (section.header.sh_type != SHT_SYMTAB && section.header.sh_type != SHT_DYNSYM) {
      continue;
    }
    const auto tables = tables_of(file, section, section.header.sh_link);
    for (size_t at = 0; tables && at + sizeof(Elf64_Sym) <= tables->entries.size(); at += sizeof(Elf64_Sym)) {
      Elf64_Sym symbol;
      std::memcpy(&symbol, tables->entries.data() + at, sizeof symbol);
      if (ELF64_ST_TYPE(symbol.st_info) != STT_OBJECT || symbol.st_shndx == SHN_UNDEF ||
          symbol.st_size != sizeof(uint64_t)) {
        continue;
      }
      if (const std::string name = conf_name(string_at(tables->linked, symbol.st_name)); !name.empty()) {
        add(found, name, symbol.st_value, false);
      }
    }
  }
}

}  // namespace

std::vector<ConfVariable> find_conf_variables(const ElfFile& file) {
  std::vector<ConfVariable> found;
  add_from_got(file, found);
  add_from_symbols(file, found);
  return found;
}

}  // namespace jemtrace::locate
