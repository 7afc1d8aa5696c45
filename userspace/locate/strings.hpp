#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "locate/elf_file.hpp"
#include "util/result.hpp"

namespace jemtrace::locate {

/// Reads `ranges` of a file in chunks that overlap by `overlap` bytes and hands each to `visit` with its
/// offset in the file. `visit` returns false to stop. Memory is bounded by one chunk, time by the sum of the
/// ranges.
Status scan_ranges(int fd, std::span<const ElfFile::Range> ranges, size_t overlap,
                   const std::function<bool(std::string_view chunk, uint64_t offset)>& visit);

/// What jemalloc prints before its own messages. Assembled at run time: jemtrace's own file must not hold it.
std::string message_tag();

/// The option names of which at least one is in every jemalloc: from 5.0 on, and before.
inline constexpr std::string_view decay_option = "dirty_decay_ms";
inline constexpr std::string_view old_decay_option = "lg_dirty_mult";

/// What the strings of a file say about the jemalloc in it. All of it survives strip.
struct Strings {
  bool message_tag = false;
  bool decay_option = false;
  bool old_decay_option = false;
  bool musl = false;      // the C library's own strings; only meaningful for a program without an interpreter
  uint32_t features = 0;  // bit i: version.cpp's feature i
  std::vector<uint64_t> anchors;  // where decay options are
  struct Candidate {
    std::string text;
    uint64_t offset = 0;
  };
  std::vector<Candidate> versions;

  [[nodiscard]] bool may_be_jemalloc() const { return message_tag && (decay_option || old_decay_option); }
};

/// One pass over all that gets mapped.
Result<Strings> read_strings(int fd, std::span<const ElfFile::Range> ranges);

}  // namespace jemtrace::locate
