#include "locate/recover/data_view.hpp"

#include <algorithm>
#include <array>
#include <cstring>

namespace jemtrace::locate::recover {
namespace {

constexpr size_t max_text = 64;
constexpr size_t max_imports = 200000;
constexpr size_t max_matches = 64;
constexpr uint64_t max_dynamic = 64 << 10;

struct Known {
  std::string_view symbol;
  External external;
};
constexpr Known known[] = {
    {"madvise", External::madvise},
    {"munmap", External::munmap},
    {"mmap", External::mmap},
    {"mmap64", External::mmap},
    {"process_madvise", External::process_madvise},
    {"syscall", External::raw_syscall},
    {"clock_gettime", External::clock},
    {"gettimeofday", External::clock},
    {"memset", External::memset},
    {"__memset_chk", External::memset},
    {"__errno_location", External::harmless},
    {"__tls_get_addr", External::harmless},
    {"__stack_chk_fail", External::harmless},
};

/// Read-only data shares a segment with the code when the linker does not separate them.
bool holds_data(const ElfFile& file, const Elf64_Phdr& segment) {
  if (segment.p_type != PT_LOAD) {
    return false;
  }
  const bool code = (segment.p_flags & PF_X) != 0;
  const bool separate = std::any_of(file.segments().begin(), file.segments().end(), [](const Elf64_Phdr& s) {
    return s.p_type == PT_LOAD && (s.p_flags & (PF_X | PF_W)) == 0 && s.p_filesz > 0;
  });
  return !code || !separate;
}

struct DynamicTables {
  uint64_t rela = 0, rela_size = 0, jmprel = 0, jmprel_size = 0, symbols = 0, strings = 0;
};

DynamicTables tables_of(const ElfFile& file) {
  static constexpr std::pair<Elf64_Sxword, uint64_t DynamicTables::*> fields[] = {
      {DT_RELA, &DynamicTables::rela},      {DT_RELASZ, &DynamicTables::rela_size},
      {DT_JMPREL, &DynamicTables::jmprel},  {DT_PLTRELSZ, &DynamicTables::jmprel_size},
      {DT_SYMTAB, &DynamicTables::symbols}, {DT_STRTAB, &DynamicTables::strings},
  };
  DynamicTables tables;
  for (const Elf64_Phdr& segment : file.segments()) {
    if (segment.p_type != PT_DYNAMIC) {
      continue;
    }
    const auto bytes = file.read(segment.p_offset, segment.p_filesz, max_dynamic);
    for (uint64_t at = 0; bytes && at + sizeof(Elf64_Dyn) <= bytes->size(); at += sizeof(Elf64_Dyn)) {
      Elf64_Dyn entry;
      std::memcpy(&entry, bytes->data() + at, sizeof entry);
      for (const auto& [tag, field] : fields) {
        if (entry.d_tag == tag) {
          tables.*field = entry.d_un.d_ptr;  // sizes too: one union
        }
      }
    }
  }
  return tables;
}

}  // namespace

uint64_t word_of(const uint8_t* run, size_t i) {
  uint64_t word = 0;
  std::memcpy(&word, run + 8 * i, sizeof word);
  return word;
}

External external_of(std::string_view symbol) {
  const auto* found =
      std::find_if(std::begin(known), std::end(known), [&](const Known& k) { return k.symbol == symbol; });
  return found == std::end(known) ? External::other : found->external;
}

DataView DataView::read(const ElfFile& file) {
  DataView view;
  // Segments of a hostile file may all show the same bytes.
  uint64_t left = file.size();
  for (const Elf64_Phdr& segment : file.segments()) {
    if (!holds_data(file, segment) || segment.p_filesz > left) {
      continue;
    }
    if (auto bytes = file.read(segment.p_offset, segment.p_filesz, left)) {
      left -= segment.p_filesz;
      view.blocks_.push_back({segment.p_vaddr, std::move(*bytes)});
    }
  }
  view.relocate(file);
  return view;
}

void DataView::relocate(const ElfFile& file) {
  const DynamicTables tables = tables_of(file);
  const std::array<std::pair<uint64_t, uint64_t>, 2> lists = {
      {{tables.rela, tables.rela_size}, {tables.jmprel, tables.jmprel_size}}};
  for (const auto& [start, size] : lists) {
    const Block* block = block_of(start, size);
    if (block == nullptr) {
      continue;
    }
    for (uint64_t at = 0; at + sizeof(Elf64_Rela) <= size; at += sizeof(Elf64_Rela)) {
      Elf64_Rela relocation;
      std::memcpy(&relocation, block->bytes.data() + (start - block->vaddr) + at, sizeof relocation);
      apply(relocation, tables.symbols, tables.strings);
    }
  }
  // Nothing to do for DT_RELR: its words hold their values already.
}

void DataView::apply(const Elf64_Rela& relocation, uint64_t symbols, uint64_t strings) {
  const uint64_t type = ELF64_R_TYPE(relocation.r_info);
  if (type == R_X86_64_RELATIVE) {
    store(relocation.r_offset, static_cast<uint64_t>(relocation.r_addend));
    return;
  }
  if (type != R_X86_64_GLOB_DAT && type != R_X86_64_JUMP_SLOT && type != R_X86_64_64) {
    return;
  }
  const uint64_t at = symbols + ELF64_R_SYM(relocation.r_info) * sizeof(Elf64_Sym);
  const Block* block = block_of(at, sizeof(Elf64_Sym));
  if (block == nullptr) {
    return;
  }
  Elf64_Sym symbol;
  std::memcpy(&symbol, block->bytes.data() + (at - block->vaddr), sizeof symbol);
  if (symbol.st_shndx != SHN_UNDEF) {
    const auto addend = type == R_X86_64_64 ? static_cast<uint64_t>(relocation.r_addend) : 0;
    store(relocation.r_offset, symbol.st_value + addend);
  } else if (imports_.size() < max_imports) {
    imports_.emplace(relocation.r_offset, external_of(text(strings + symbol.st_name)));
  }
}

void DataView::store(uint64_t vaddr, uint64_t value) {
  if (const Block* block = block_of(vaddr, sizeof value)) {
    auto& bytes = blocks_[static_cast<size_t>(block - blocks_.data())].bytes;
    std::memcpy(bytes.data() + (vaddr - block->vaddr), &value, sizeof value);
  }
}

const DataView::Block* DataView::block_of(uint64_t vaddr, uint64_t size) const {
  for (const Block& block : blocks_) {
    if (vaddr >= block.vaddr && vaddr - block.vaddr < block.bytes.size() &&
        size <= block.bytes.size() - (vaddr - block.vaddr)) {
      return &block;
    }
  }
  return nullptr;
}

std::optional<uint64_t> DataView::word(uint64_t vaddr) const {
  const Block* block = block_of(vaddr, 8);
  if (block == nullptr) {
    return std::nullopt;
  }
  return word_of(block->bytes.data() + (vaddr - block->vaddr), 0);
}

std::string_view DataView::text(uint64_t vaddr) const {
  const Block* block = block_of(vaddr, 1);
  if (block == nullptr) {
    return {};
  }
  const uint64_t from = vaddr - block->vaddr;
  const std::span<const uint8_t> rest = std::span(block->bytes).subspan(from);
  return string_at(rest.first(std::min(rest.size(), max_text)), 0);
}

External DataView::import_at(uint64_t slot) const {
  const auto found = imports_.find(slot);
  return found == imports_.end() ? External::none : found->second;
}

std::vector<uint64_t> DataView::find_text(std::string_view text) const {
  const std::string wanted = std::string(text) + '\0';
  std::vector<uint64_t> found;
  for (const Block& block : blocks_) {
    const std::string_view bytes(reinterpret_cast<const char*>(block.bytes.data()), block.bytes.size());
    const char* from = bytes.data();
    const char* const end = bytes.data() + bytes.size();
    while (found.size() < max_matches && from < end) {
      const auto* at = static_cast<const char*>(
          ::memmem(from, static_cast<size_t>(end - from), wanted.data(), wanted.size()));
      if (at == nullptr) {
        break;
      }
      found.push_back(block.vaddr + static_cast<uint64_t>(at - bytes.data()));
      from = at + 1;
    }
  }
  return found;
}

}  // namespace jemtrace::locate::recover
