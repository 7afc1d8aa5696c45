#include "locate/elf_file.hpp"

#include <libelf.h>
#include <sys/stat.h>

#include <algorithm>
#include <cstring>
#include <memory>

#include "util/file.hpp"

namespace jemtrace::locate {
namespace {

// Far beyond any real program, far below what hurts. (Chromium: 12 segments, 40 sections.)
constexpr size_t max_segments = 256;
constexpr size_t max_sections = 20000;
constexpr uint64_t max_section_names = uint64_t{4} << 20;
constexpr uint64_t max_notes = uint64_t{64} << 10;

struct EndElf {
  void operator()(Elf* elf) const { elf_end(elf); }
};
using ElfHandle = std::unique_ptr<Elf, EndElf>;

/// offset + size, without wrapping, and not beyond `end`.
bool fits(uint64_t offset, uint64_t size, uint64_t end) {
  return offset <= end && size <= end - offset;
}

tl::unexpected<Error> malformed(const std::string& path, const std::string& why) {
  return fail(Errc::malformed, path + " is not a sound ELF file: " + why);
}

std::string hex(std::span<const uint8_t> bytes) {
  static constexpr char digits[] = "0123456789abcdef";
  std::string out;
  for (const uint8_t byte : bytes) {
    out += digits[byte >> 4];
    out += digits[byte & 15];
  }
  return out;
}

uint64_t align_up(uint64_t value, uint64_t alignment) {
  return (value + alignment - 1) & ~(alignment - 1);
}

/// The build-id in a run of notes. GNU property notes align to 8, all others to 4.
std::string build_id_in(std::span<const uint8_t> notes, uint64_t alignment) {
  uint64_t at = 0;
  while (fits(at, sizeof(Elf64_Nhdr), notes.size())) {
    Elf64_Nhdr note;
    std::memcpy(&note, notes.data() + at, sizeof note);
    const uint64_t name = at + sizeof note;
    const uint64_t desc = name + align_up(note.n_namesz, alignment);
    if (!fits(name, note.n_namesz, notes.size()) || !fits(desc, note.n_descsz, notes.size())) {
      break;
    }
    const bool gnu = note.n_namesz == 4 && std::memcmp(notes.data() + name, "GNU", 4) == 0;
    if (gnu && note.n_type == NT_GNU_BUILD_ID && note.n_descsz >= 4 && note.n_descsz <= 64) {
      return hex(notes.subspan(desc, note.n_descsz));
    }
    at = desc + align_up(note.n_descsz, alignment);
  }
  return {};
}

}  // namespace

std::string_view string_at(std::span<const uint8_t> table, uint64_t offset) {
  if (offset >= table.size()) {
    return {};
  }
  const auto* start = reinterpret_cast<const char*>(table.data()) + offset;
  const auto* end = static_cast<const char*>(std::memchr(start, 0, table.size() - offset));
  return end == nullptr ? std::string_view{} : std::string_view(start, static_cast<size_t>(end - start));
}

Result<ElfFile> ElfFile::open(int fd, const std::string& path, uint64_t max_size) {
  elf_version(EV_CURRENT);
  struct stat status {};
  if (::fstat(fd, &status) != 0) {
    return fail_errno("cannot stat " + path);
  }
  if (!S_ISREG(status.st_mode)) {
    return fail(Errc::malformed, path + " is not a regular file");
  }
  ElfFile file;
  file.fd_ = fd;
  file.size_ = static_cast<uint64_t>(status.st_size);
  file.path_ = path;
  if (file.size_ > max_size) {
    return fail(Errc::too_large, path + " is larger than " + std::to_string(max_size) + " bytes");
  }
  const ElfHandle elf(elf_begin(fd, ELF_C_READ, nullptr));
  TRY(file.load_headers(elf.get()));
  return file;
}

Result<ElfFile> ElfFile::from_memory(Bytes image, const std::string& path) {
  elf_version(EV_CURRENT);
  ElfFile file;
  file.memory_ = std::move(image);
  file.size_ = file.memory_.size();
  file.path_ = path;
  const ElfHandle elf(elf_memory(reinterpret_cast<char*>(file.memory_.data()), file.memory_.size()));
  TRY(file.load_headers(elf.get()));
  return file;
}

Status ElfFile::load_headers(void* handle) {
  auto* elf = static_cast<Elf*>(handle);
  if (elf == nullptr || elf_kind(elf) != ELF_K_ELF) {
    return malformed(path_, "no ELF header");
  }
  size_t ident_size = 0;
  const char* ident = elf_getident(elf, &ident_size);
  if (ident == nullptr || ident_size < EI_NIDENT) {
    return malformed(path_, "no identification");
  }
  if (ident[EI_CLASS] == ELFCLASS32) {
    return fail(Errc::unsupported, path_ + " is a 32-bit ELF file");
  }
  if (ident[EI_CLASS] != ELFCLASS64 || ident[EI_DATA] != ELFDATA2LSB) {
    return fail(Errc::unsupported, path_ + " is not a 64-bit little-endian ELF file");
  }
  const Elf64_Ehdr* header = elf64_getehdr(elf);
  size_t n_segments = 0;
  size_t n_sections = 0;
  if (header == nullptr || elf_getphdrnum(elf, &n_segments) != 0 || elf_getshdrnum(elf, &n_sections) != 0) {
    return malformed(path_, elf_errmsg(-1));
  }
  if (n_segments > max_segments || n_sections > max_sections) {
    return malformed(path_, "too many segments or sections");
  }
  header_ = *header;
  if (const Elf64_Phdr* segments = n_segments == 0 ? nullptr : elf64_getphdr(elf)) {
    segments_.assign(segments, segments + n_segments);
  }

  size_t names_index = 0;
  Bytes names;
  Elf_Scn* names_section =
      elf_getshdrstrndx(elf, &names_index) == 0 && names_index != 0 ? elf_getscn(elf, names_index) : nullptr;
  if (const Elf64_Shdr* shdr = names_section == nullptr ? nullptr : elf64_getshdr(names_section)) {
    if (auto bytes = read(shdr->sh_offset, shdr->sh_size, max_section_names)) {
      names = std::move(*bytes);
    }
  }
  // Section headers are a convenience: a file without them, or with broken ones, still runs.
  for (size_t i = 0; i < n_sections; ++i) {
    Elf_Scn* scn = elf_getscn(elf, i);
    const Elf64_Shdr* shdr = scn == nullptr ? nullptr : elf64_getshdr(scn);
    if (shdr == nullptr) {
      sections_.clear();
      break;
    }
    sections_.push_back({std::string(string_at(names, shdr->sh_name).substr(0, 128)), *shdr});
  }
  return {};
}

const ElfFile::Section* ElfFile::section(std::string_view name) const {
  const auto found =
      std::find_if(sections_.begin(), sections_.end(), [&](const Section& s) { return s.name == name; });
  return found == sections_.end() ? nullptr : &*found;
}

const ElfFile::Section* ElfFile::section_of_type(uint32_t type) const {
  const auto found = std::find_if(sections_.begin(), sections_.end(),
                                  [&](const Section& s) { return s.header.sh_type == type; });
  return found == sections_.end() ? nullptr : &*found;
}

Result<Bytes> ElfFile::read(uint64_t offset, uint64_t size, uint64_t limit) const {
  if (size > limit) {
    return fail(Errc::too_large,
                "a part of " + path_ + " is larger than " + std::to_string(limit) + " bytes");
  }
  if (!fits(offset, size, size_)) {
    return malformed(path_, "a part lies beyond its end");
  }
  Bytes bytes(size);
  if (fd_ < 0) {
    std::copy_n(memory_.begin() + static_cast<ptrdiff_t>(offset), size, bytes.begin());
  } else {
    TRY(read_at(fd_, offset, bytes.data(), bytes.size()));
  }
  return bytes;
}

Result<Bytes> ElfFile::contents(const Section& section, uint64_t limit) const {
  if (section.header.sh_type == SHT_NOBITS) {
    return Bytes{};
  }
  return read(section.header.sh_offset, section.header.sh_size, limit);
}

Result<Bytes> ElfFile::read_vaddr(uint64_t vaddr, uint64_t size, uint64_t limit) const {
  const Elf64_Phdr* segment = segment_of(vaddr);
  if (segment == nullptr || !fits(vaddr - segment->p_vaddr, size, segment->p_filesz)) {
    return malformed(path_, "an address is in no segment");
  }
  return read(vaddr - segment->p_vaddr + segment->p_offset, size, limit);
}

const Elf64_Phdr* ElfFile::segment_of(uint64_t vaddr) const {
  for (const Elf64_Phdr& segment : segments_) {
    if (segment.p_type == PT_LOAD && vaddr >= segment.p_vaddr && vaddr - segment.p_vaddr < segment.p_filesz &&
        fits(segment.p_offset, segment.p_filesz, size_)) {
      return &segment;
    }
  }
  return nullptr;
}

std::optional<uint64_t> ElfFile::file_offset(uint64_t vaddr) const {
  const Elf64_Phdr* segment = segment_of(vaddr);
  if (segment == nullptr) {
    return std::nullopt;
  }
  return vaddr - segment->p_vaddr + segment->p_offset;
}

bool ElfFile::executable(uint64_t vaddr) const {
  const Elf64_Phdr* segment = segment_of(vaddr);
  return segment != nullptr && (segment->p_flags & PF_X) != 0;
}

std::vector<ElfFile::Range> ElfFile::loaded_ranges() const {
  return loaded_ranges(segments_, size_);
}

std::vector<ElfFile::Range> ElfFile::loaded_ranges(std::span<const Elf64_Phdr> segments, uint64_t size) {
  std::vector<Range> ranges;
  for (const Elf64_Phdr& segment : segments) {
    if (segment.p_type == PT_LOAD && segment.p_offset < size && segment.p_filesz > 0) {
      ranges.push_back({segment.p_offset, std::min(segment.p_filesz, size - segment.p_offset)});
    }
  }
  std::sort(ranges.begin(), ranges.end(), [](const Range& a, const Range& b) { return a.offset < b.offset; });
  // Overlapping segments must not make us read the same bytes again and again.
  std::vector<Range> merged;
  for (const Range& range : ranges) {
    if (!merged.empty() && range.offset <= merged.back().offset + merged.back().size) {
      Range& last = merged.back();
      last.size = std::max(last.offset + last.size, range.offset + range.size) - last.offset;
    } else {
      merged.push_back(range);
    }
  }
  return merged;
}

std::string ElfFile::build_id() const {
  for (const Elf64_Phdr& segment : segments_) {
    if (segment.p_type != PT_NOTE) {
      continue;
    }
    if (const auto notes = read(segment.p_offset, segment.p_filesz, max_notes)) {
      if (std::string id = build_id_in(*notes, segment.p_align == 8 ? 8 : 4); !id.empty()) {
        return id;
      }
    }
  }
  for (const Section& section : sections_) {
    if (section.header.sh_type != SHT_NOTE) {
      continue;
    }
    if (const auto notes = contents(section, max_notes)) {
      if (std::string id = build_id_in(*notes, section.header.sh_addralign == 8 ? 8 : 4); !id.empty()) {
        return id;
      }
    }
  }
  return {};
}

std::string ElfFile::interpreter() const {
  for (const Elf64_Phdr& segment : segments_) {
    if (segment.p_type == PT_INTERP) {
      if (const auto bytes = read(segment.p_offset, segment.p_filesz, 4096)) {
        return std::string(string_at(*bytes, 0));
      }
    }
  }
  return {};
}

}  // namespace jemtrace::locate
