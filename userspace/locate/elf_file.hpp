#pragma once

#include <elf.h>

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "util/fd.hpp"
#include "util/result.hpp"

namespace jemtrace::locate {

using Bytes = std::vector<uint8_t>;

/// A 64-bit little-endian ELF file that may be hostile. Headers are copied out once, bytes are read on demand
/// with pread, nothing is mapped: a file truncated under us is an error, not a SIGBUS.
class ElfFile {
 public:
  struct Section {
    std::string name;
    Elf64_Shdr header{};
  };

  /// `fd` stays the caller's and has to live as long as the object. Errc::malformed: no ELF, or headers that
  /// make no sense. Errc::unsupported: 32-bit or big-endian. Errc::too_large: beyond `max_size`.
  static Result<ElfFile> open(int fd, const std::string& path, uint64_t max_size);
  /// An ELF file held in memory (MiniDebugInfo).
  static Result<ElfFile> from_memory(Bytes image, const std::string& path);

  [[nodiscard]] const std::string& path() const { return path_; }
  [[nodiscard]] uint64_t size() const { return size_; }
  [[nodiscard]] const Elf64_Ehdr& header() const { return header_; }
  [[nodiscard]] std::span<const Elf64_Phdr> segments() const { return segments_; }
  [[nodiscard]] const std::vector<Section>& sections() const { return sections_; }
  [[nodiscard]] const Section* section(std::string_view name) const;
  [[nodiscard]] const Section* section_of_type(uint32_t type) const;
  [[nodiscard]] bool x86_64() const { return header_.e_machine == EM_X86_64; }

  /// Exactly `size` bytes; Errc::malformed beyond the end of the file, Errc::too_large when `size` > `limit`.
  [[nodiscard]] Result<Bytes> read(uint64_t offset, uint64_t size, uint64_t limit) const;
  /// The bytes of a section; empty for SHT_NOBITS.
  [[nodiscard]] Result<Bytes> contents(const Section& section, uint64_t limit) const;
  /// Bytes at an address as linked; fails when they are not wholly in one PT_LOAD of the file.
  [[nodiscard]] Result<Bytes> read_vaddr(uint64_t vaddr, uint64_t size, uint64_t limit) const;

  /// Where the byte at `vaddr` is in the file; nullopt when no PT_LOAD has it.
  [[nodiscard]] std::optional<uint64_t> file_offset(uint64_t vaddr) const;
  /// The PT_LOAD whose bytes in the file hold `vaddr`.
  [[nodiscard]] const Elf64_Phdr* segment_of(uint64_t vaddr) const;
  [[nodiscard]] bool executable(uint64_t vaddr) const;

  /// The parts of the file that get mapped, ascending, disjoint, clipped to the file.
  struct Range {
    uint64_t offset = 0, size = 0;
  };
  [[nodiscard]] std::vector<Range> loaded_ranges() const;
  /// What PT_LOAD segments of a file of `size` bytes come to.
  static std::vector<Range> loaded_ranges(std::span<const Elf64_Phdr> segments, uint64_t size);

  /// NT_GNU_BUILD_ID as hex; empty when there is none.
  [[nodiscard]] std::string build_id() const;
  /// PT_INTERP; empty when there is none.
  [[nodiscard]] std::string interpreter() const;

 private:
  ElfFile() = default;
  Status load_headers(void* elf);

  int fd_ = -1;
  Bytes memory_;
  uint64_t size_ = 0;
  std::string path_;
  Elf64_Ehdr header_{};
  std::vector<Elf64_Phdr> segments_;
  std::vector<Section> sections_;
};

/// A NUL-terminated string inside a table; empty when `offset` is outside or the end is missing.
std::string_view string_at(std::span<const uint8_t> table, uint64_t offset);

}  // namespace jemtrace::locate
