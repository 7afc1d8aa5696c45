#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

/// The kernel's two ways to write down a number by name.
namespace jemtrace::sample {

/// The decimal number that `text` begins with, after blanks; nullopt when there is none.
std::optional<uint64_t> number_at(std::string_view text);

/// "name 123" at the start of a line, as in memory.stat and /proc/vmstat.
std::optional<uint64_t> counter(std::string_view text, std::string_view name);

/// "Name:   123 kB" at the start of a line, as in smaps and status, in bytes. `name` ends in ':'.
std::optional<uint64_t> field_bytes(std::string_view text, std::string_view name);

/// Takes the next line off the front of `text`, without its newline.
std::string_view take_line(std::string_view& text);

}  // namespace jemtrace::sample
