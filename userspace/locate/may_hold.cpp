#include <sys/stat.h>

#include <array>
#include <cstring>

#include "locate/elf_file.hpp"
#include "locate/image.hpp"
#include "locate/strings.hpp"
#include "util/file.hpp"

namespace jemtrace::locate {
namespace {

constexpr size_t max_segments = 256;

bool contains(std::string_view chunk, std::string_view needle) {
  return ::memmem(chunk.data(), chunk.size(), needle.data(), needle.size()) != nullptr;
}

/// The parts worth scanning: what gets mapped; all of a 32-bit or big-endian file; nothing of what is no ELF
/// file: scripts, fonts, archives are most of what is mapped on a host.
///
/// Not by ElfFile: this runs with all privileges, so it reads one table of fixed-size entries and no more.
std::vector<ElfFile::Range> ranges_of(int fd, uint64_t size) {
  Elf64_Ehdr header;
  if (size < sizeof header || !read_at(fd, 0, &header, sizeof header) ||
      std::memcmp(header.e_ident, ELFMAG, SELFMAG) != 0) {
    return {};
  }
  if (header.e_ident[EI_CLASS] != ELFCLASS64 || header.e_ident[EI_DATA] != ELFDATA2LSB) {
    return {{0, size}};
  }
  std::array<Elf64_Phdr, max_segments> table;
  if (header.e_phentsize != sizeof table[0] || header.e_phnum > table.size() || header.e_phoff > size ||
      !read_at(fd, header.e_phoff, table.data(), header.e_phnum * sizeof table[0])) {
    return {};
  }
  return ElfFile::loaded_ranges(std::span(table).first(header.e_phnum), size);
}

}  // namespace

Result<bool> may_hold_jemalloc(int fd, const Options& options) {
  struct stat status {};
  if (::fstat(fd, &status) != 0) {
    return fail_errno("cannot stat the file");
  }
  if (!S_ISREG(status.st_mode)) {
    return false;
  }
  const auto size = static_cast<uint64_t>(status.st_size);
  if (size > options.max_file_size) {
    return fail(Errc::too_large,
                "the file is larger than " + std::to_string(options.max_file_size) + " bytes");
  }
  const std::string tag = message_tag();
  bool has_tag = false;
  bool has_option = false;
  TRY(scan_ranges(fd, ranges_of(fd, size), 64, [&](std::string_view chunk, uint64_t) {
    has_tag = has_tag || contains(chunk, tag);
    has_option = has_option || contains(chunk, decay_option) || contains(chunk, old_decay_option);
    return !(has_tag && has_option);
  }));
  return has_tag && has_option;
}

}  // namespace jemtrace::locate
