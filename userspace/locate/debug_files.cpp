#include "locate/debug_files.hpp"

#include <fcntl.h>
#include <lzma.h>
#include <sys/stat.h>

#include <algorithm>
#include <cstring>
#include <optional>

#include "util/file.hpp"

namespace jemtrace::locate {
namespace {

constexpr uint64_t max_packed = uint64_t{32} << 20;
constexpr size_t max_unpacked = size_t{64} << 20;
constexpr uint64_t xz_memory = uint64_t{128} << 20;  // xz -9 needs 65 MB
constexpr uint64_t max_link_section = 4096;
constexpr uint64_t max_linked_file = uint64_t{2} << 30;

struct DebugLink {
  std::string name;
  uint32_t crc = 0;
};

/// .gnu_debuglink: a file name, padding to 4 bytes, a CRC32.
std::optional<DebugLink> debug_link(const ElfFile& file) {
  const auto* section = file.section(".gnu_debuglink");
  if (section == nullptr) {
    return std::nullopt;
  }
  const auto bytes = file.contents(*section, max_link_section);
  if (!bytes) {
    return std::nullopt;
  }
  DebugLink link{std::string(string_at(*bytes, 0)), 0};
  const size_t crc_at = (link.name.size() + 1 + 3) & ~size_t{3};
  if (link.name.empty() || link.name.find('/') != std::string::npos || link.name == ".." ||
      link.name == "." || crc_at + sizeof link.crc > bytes->size()) {
    return std::nullopt;
  }
  std::memcpy(&link.crc, bytes->data() + crc_at, sizeof link.crc);
  return link;
}

Result<uint32_t> crc_of(const ElfFile& file) {
  if (file.size() > max_linked_file) {
    return fail(Errc::too_large, file.path() + " is too large for a checksum");
  }
  uint32_t crc = 0;
  constexpr uint64_t step = uint64_t{1} << 20;
  for (uint64_t at = 0; at < file.size(); at += step) {
    ASSIGN_OR_RETURN(const Bytes bytes, file.read(at, std::min(step, file.size() - at), step));
    crc = lzma_crc32(bytes.data(), bytes.size(), crc);
  }
  return crc;
}

Result<DebugFile> open_debug_file(const std::string& path, const std::string& found_by,
                                  const Options& options) {
  ASSIGN_OR_RETURN(Fd fd, options.open_debug_file ? options.open_debug_file(path) : open_debug_path(path));
  ASSIGN_OR_RETURN(ElfFile elf, ElfFile::open(fd.get(), path, options.max_file_size));
  return DebugFile{std::move(fd), std::move(elf), found_by};
}

std::optional<DebugFile> by_build_id(const std::string& build_id, const Options& options,
                                     std::vector<std::string>& notes) {
  if (build_id.size() < 6) {
    return std::nullopt;
  }
  const std::string path =
      options.debug_root + "/.build-id/" + build_id.substr(0, 2) + "/" + build_id.substr(2) + ".debug";
  auto debug = open_debug_file(path, "build-id", options);
  if (!debug) {
    return std::nullopt;
  }
  if (debug->elf.build_id() != build_id) {
    notes.push_back("the debug file " + path + " has another build-id and was not used");
    return std::nullopt;
  }
  return std::move(*debug);
}

/// The folder of the image below the debug root, as gdb does it; nullopt for a path that could lead
/// elsewhere.
std::optional<std::string> folder_below_root(const std::string& path, const Options& options) {
  const size_t slash = path.rfind('/');
  if (path.empty() || path.front() != '/' || path.find("/../") != std::string::npos ||
      path.find('\0') != std::string::npos) {
    return std::nullopt;
  }
  return options.debug_root + path.substr(0, slash + 1);
}

std::optional<DebugFile> by_link(const ElfFile& file, const std::string& build_id, const Options& options,
                                 std::vector<std::string>& notes) {
  const auto link = debug_link(file);
  const auto folder = folder_below_root(file.path(), options);
  if (!link || !folder) {
    return std::nullopt;
  }
  for (const std::string& path : {*folder + link->name, *folder + ".debug/" + link->name}) {
    auto debug = open_debug_file(path, "debuglink", options);
    if (!debug) {
      continue;
    }
    const std::string id = debug->elf.build_id();
    const bool other = !build_id.empty() && !id.empty() && id != build_id;
    const auto crc = crc_of(debug->elf);
    if (other || !crc || *crc != link->crc) {
      notes.push_back("the debug file " + path + " belongs to another build and was not used");
      continue;
    }
    return std::move(*debug);
  }
  return std::nullopt;
}

std::optional<DebugFile> mini_debug_info(const ElfFile& file, std::vector<std::string>& notes) {
  const auto* section = file.section(".gnu_debugdata");
  if (section == nullptr) {
    return std::nullopt;
  }
  const auto packed = file.contents(*section, max_packed);
  auto unpacked =
      packed ? unpack_xz(*packed, max_unpacked) : Result<Bytes>(tl::unexpected<Error>(packed.error()));
  auto elf = unpacked ? ElfFile::from_memory(std::move(*unpacked), "the MiniDebugInfo of " + file.path())
                      : Result<ElfFile>(tl::unexpected<Error>(unpacked.error()));
  if (!elf) {
    notes.push_back("its MiniDebugInfo cannot be read: " + elf.error().what);
    return std::nullopt;
  }
  return DebugFile{Fd(), std::move(*elf), "minidebuginfo"};
}

/// "ab/cdef0123.debug", all hex.
bool is_build_id_name(std::string_view name) {
  constexpr std::string_view suffix = ".debug";
  if (name.size() < 4 + suffix.size() || !name.ends_with(suffix) || name[2] != '/') {
    return false;
  }
  name.remove_suffix(suffix.size());
  return name.find_first_not_of("0123456789abcdef", 3) == std::string_view::npos &&
         name.substr(0, 2).find_first_not_of("0123456789abcdef") == std::string_view::npos;
}

bool is_file_name(std::string_view name) {
  return !name.empty() && name.find('/') == std::string_view::npos &&
         name.find('\0') == std::string_view::npos && name != "." && name != "..";
}

}  // namespace

Result<Fd> open_debug_path(const std::string& path) {
  // O_NONBLOCK: no waiting on a FIFO that somebody put there.
  return open_file(path, O_RDONLY | O_NONBLOCK | O_NOCTTY);
}

bool may_be_debug_file_of(std::string_view path, const std::string& image, const Options& options) {
  const std::string by_id = options.debug_root + "/.build-id/";
  if (path.starts_with(by_id)) {
    return is_build_id_name(path.substr(by_id.size()));
  }
  const auto folder = folder_below_root(image, options);
  if (!folder || !path.starts_with(*folder)) {
    return false;
  }
  path.remove_prefix(folder->size());
  if (path.starts_with(".debug/")) {
    path.remove_prefix(std::string_view(".debug/").size());
  }
  return is_file_name(path);
}

Result<Bytes> unpack_xz(std::span<const uint8_t> packed, size_t limit) {
  struct Stream {
    lzma_stream it = LZMA_STREAM_INIT;
    ~Stream() { lzma_end(&it); }
  } stream;
  if (lzma_stream_decoder(&stream.it, xz_memory, LZMA_CONCATENATED) != LZMA_OK) {
    return fail(Errc::system, "no xz decoder");
  }
  Bytes out;
  stream.it.next_in = packed.data();
  stream.it.avail_in = packed.size();
  for (;;) {
    const size_t have = out.size();
    if (have >= limit) {
      return fail(Errc::too_large, "unpacks to more than " + std::to_string(limit) + " bytes");
    }
    out.resize(std::min(limit, std::max<size_t>(have * 2, size_t{1} << 18)));
    stream.it.next_out = out.data() + have;
    stream.it.avail_out = out.size() - have;
    const lzma_ret result = lzma_code(&stream.it, LZMA_FINISH);
    out.resize(out.size() - stream.it.avail_out);
    if (result == LZMA_STREAM_END) {
      return out;
    }
    if (result != LZMA_OK) {
      return fail(Errc::malformed, "is no sound xz stream");
    }
  }
}

std::vector<DebugFile> debug_files(const ElfFile& file, const std::string& build_id, const Options& options,
                                   std::vector<std::string>& notes) {
  std::vector<DebugFile> found;
  const auto keep = [&](std::optional<DebugFile> debug) {
    if (debug && debug->elf.header().e_machine == file.header().e_machine) {
      found.push_back(std::move(*debug));
    }
  };
  keep(by_build_id(build_id, options, notes));
  if (found.empty()) {
    keep(by_link(file, build_id, options, notes));
  }
  if (found.empty()) {
    keep(mini_debug_info(file, notes));
  }
  return found;
}

}  // namespace jemtrace::locate
