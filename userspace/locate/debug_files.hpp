#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "locate/elf_file.hpp"
#include "locate/image.hpp"
#include "util/fd.hpp"

namespace jemtrace::locate {

/// A file with the symbols that strip took out of another.
struct DebugFile {
  Fd fd;
  ElfFile elf;
  std::string found_by;  // "build-id", "debuglink", "minidebuginfo"
};

/// All that belong to `file`, best first. Root reads files here on the word of a hostile one: nothing is
/// looked for outside `options.debug_root`, no name with a slash or ".." is followed, and each candidate has
/// to carry the same build-id (or, without one, the checksum of .gnu_debuglink).
std::vector<DebugFile> debug_files(const ElfFile& file, const std::string& build_id, const Options& options,
                                   std::vector<std::string>& notes);

/// True for the paths that `debug_files` looks for on behalf of the file `image`, whatever that file says.
/// Who opens files for a process that may be in an attacker's hands checks this.
bool may_be_debug_file_of(std::string_view path, const std::string& image, const Options& options);
Result<Fd> open_debug_path(const std::string& path);

/// Unpacks an .xz stream, at most `limit` bytes of it, with bounded memory.
Result<Bytes> unpack_xz(std::span<const uint8_t> packed, size_t limit);

}  // namespace jemtrace::locate
