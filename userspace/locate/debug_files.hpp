#pragma once

#include <string>
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

/// Unpacks an .xz stream, at most `limit` bytes of it, with bounded memory.
Result<Bytes> unpack_xz(std::span<const uint8_t> packed, size_t limit);

}  // namespace jemtrace::locate
