#include "sample/fields.hpp"

#include <algorithm>
#include <charconv>

namespace jemtrace::sample {
namespace {

/// What follows `name` in the line that begins with it.
std::optional<std::string_view> behind(std::string_view text, std::string_view name) {
  for (size_t at = text.find(name); at != std::string_view::npos; at = text.find(name, at + 1)) {
    if (at == 0 || text[at - 1] == '\n') {
      return text.substr(at + name.size());
    }
  }
  return std::nullopt;
}

}  // namespace

std::optional<uint64_t> number_at(std::string_view text) {
  text.remove_prefix(std::min(text.find_first_not_of(" \t"), text.size()));
  uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc{} ? std::optional(value) : std::nullopt;
}

std::optional<uint64_t> counter(std::string_view text, std::string_view name) {
  while (const auto rest = behind(text, name)) {
    if (!rest->empty() && rest->front() == ' ') {
      return number_at(*rest);
    }
    text = *rest;  // a longer name began like this one
  }
  return std::nullopt;
}

std::optional<uint64_t> field_bytes(std::string_view text, std::string_view name) {
  const auto rest = behind(text, name);
  const auto kilobytes = rest ? number_at(*rest) : std::nullopt;
  return kilobytes ? std::optional(*kilobytes * 1024) : std::nullopt;
}

std::string_view take_line(std::string_view& text) {
  const size_t newline = std::min(text.find('\n'), text.size());
  const std::string_view line = text.substr(0, newline);
  text.remove_prefix(std::min(newline + 1, text.size()));
  return line;
}

}  // namespace jemtrace::sample
