#include "discover/maps.hpp"

#include <fmt/format.h>

#include <charconv>

namespace jemtrace::discover {
namespace {

/// Takes a number off the front of `text`, together with the `separator` behind it.
template <typename T>
bool take_number(std::string_view& text, T& out, int base, char separator) {
  const char* const last = text.data() + text.size();
  const auto [end, error] = std::from_chars(text.data(), last, out, base);
  if (error != std::errc{} || end == last || *end != separator) {
    return false;
  }
  text.remove_prefix(static_cast<size_t>(end - text.data()) + 1);
  return true;
}

}  // namespace

std::optional<Mapping> parse_mapping(std::string_view line) {
  Mapping m;
  if (!take_number(line, m.start, 16, '-') || !take_number(line, m.end, 16, ' ') || line.size() < 5 ||
      line[4] != ' ' || m.end <= m.start) {
    return std::nullopt;
  }
  m.executable = line[2] == 'x';
  line.remove_prefix(5);
  if (!take_number(line, m.file_offset, 16, ' ') || !take_number(line, m.device_major, 16, ':') ||
      !take_number(line, m.device_minor, 16, ' ')) {
    return std::nullopt;
  }
  const char* const last = line.data() + line.size();
  const auto [end, error] = std::from_chars(line.data(), last, m.inode, 10);
  if (error != std::errc{}) {
    return std::nullopt;
  }
  line.remove_prefix(static_cast<size_t>(end - line.data()));
  // Padding before the path; the path itself may hold spaces.
  if (const size_t path = line.find_first_not_of(' '); path != std::string_view::npos) {
    m.path = line.substr(path);
  }
  return m;
}

Mappings::Mappings(std::string text) : text_(std::make_unique<const std::string>(std::move(text))) {
  std::string_view rest = *text_;
  while (!rest.empty()) {
    const size_t newline = std::min(rest.find('\n'), rest.size());
    if (const auto mapping = parse_mapping(rest.substr(0, newline))) {
      all_.push_back(*mapping);
    }
    rest.remove_prefix(std::min(newline + 1, rest.size()));
  }
}

Result<Mappings> Mappings::read(const ProcRoot& proc, pid_t pid) {
  ASSIGN_OR_RETURN(std::string text, proc.read(pid, "maps"));
  return Mappings(std::move(text));
}

std::string map_file_path(const ProcRoot& proc, pid_t pid, const Mapping& mapping) {
  return proc.of(pid, fmt::format("map_files/{:x}-{:x}", mapping.start, mapping.end));
}

}  // namespace jemtrace::discover
