#include "util/text.hpp"

#include <fmt/format.h>
#include <fnmatch.h>

#include <array>
#include <charconv>

namespace jemtrace {
namespace {

/// Length of the well-formed, printable UTF-8 sequence at the start of `s`; 0 when there is none.
size_t printable_utf8(std::string_view s) {
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(s[i]); };
  const unsigned char first = byte(0);
  if (first < 0x80) {
    return first >= 0x20 && first != 0x7f && first != '\\' ? 1 : 0;
  }
  size_t length = 0;
  uint32_t code = 0;
  uint32_t smallest = 0;
  if ((first & 0xe0) == 0xc0) {
    length = 2, code = first & 0x1f, smallest = 0x80;
  } else if ((first & 0xf0) == 0xe0) {
    length = 3, code = first & 0x0f, smallest = 0x800;
  } else if ((first & 0xf8) == 0xf0) {
    length = 4, code = first & 0x07, smallest = 0x10000;
  } else {
    return 0;
  }
  if (s.size() < length) {
    return 0;
  }
  for (size_t i = 1; i < length; ++i) {
    if ((byte(i) & 0xc0) != 0x80) {
      return 0;
    }
    code = code << 6 | (byte(i) & 0x3f);
  }
  const bool surrogate = code >= 0xd800 && code <= 0xdfff;
  const bool c1 = code >= 0x80 && code < 0xa0;
  // Marks that turn the direction of the text can make one name look like another.
  const bool bidi = (code >= 0x202a && code <= 0x202e) || (code >= 0x2066 && code <= 0x2069);
  return code < smallest || code > 0x10ffff || surrogate || c1 || bidi ? 0 : length;
}

std::string three_digits(double value, std::string_view unit) {
  if (value < 9.995) {
    return fmt::format("{:.2f} {}", value, unit);
  }
  if (value < 99.95) {
    return fmt::format("{:.1f} {}", value, unit);
  }
  return fmt::format("{:.0f} {}", value, unit);
}

}  // namespace

std::string escape(std::string_view untrusted) {
  std::string out;
  out.reserve(untrusted.size());
  for (size_t i = 0; i < untrusted.size();) {
    if (const size_t n = printable_utf8(untrusted.substr(i)); n > 0) {
      out.append(untrusted.substr(i, n));
      i += n;
    } else {
      out += fmt::format("\\x{:02x}", static_cast<unsigned char>(untrusted[i]));
      ++i;
    }
  }
  return out;
}

std::string human_bytes(uint64_t bytes) {
  static constexpr std::array units = {"kB", "MB", "GB", "TB", "PB", "EB"};
  if (bytes < 1024) {
    return fmt::format("{} B", bytes);
  }
  double value = static_cast<double>(bytes) / 1024;
  size_t unit = 0;
  while (value >= 999.5 && unit + 1 < units.size()) {
    value /= 1024;
    ++unit;
  }
  return three_digits(value, units[unit]);
}

std::string human_bytes_delta(int64_t bytes) {
  if (bytes == 0) {
    return "0";
  }
  const auto magnitude = bytes < 0 ? ~static_cast<uint64_t>(bytes) + 1 : static_cast<uint64_t>(bytes);
  return fmt::format("{}{}", bytes < 0 ? '-' : '+', human_bytes(magnitude));
}

std::string human_ns(uint64_t ns) {
  if (ns < 1000) {
    return fmt::format("{} ns", ns);
  }
  static constexpr std::array units = {"us", "ms", "s"};
  double value = static_cast<double>(ns) / 1000;
  size_t unit = 0;
  while (value >= 999.5 && unit + 1 < units.size()) {
    value /= 1000;
    ++unit;
  }
  return value < 9.95 ? fmt::format("{:.1f} {}", value, units[unit])
                      : fmt::format("{:.0f} {}", value, units[unit]);
}

std::string human_count(uint64_t count) {
  std::string digits = std::to_string(count);
  for (size_t at = digits.size(); at > 3; at -= 3) {
    digits.insert(at - 3, 1, ' ');
  }
  return digits;
}

std::string plural(uint64_t count, const char* one, const char* many) {
  return human_count(count) + ' ' + (count == 1 ? one : many);
}

Result<std::chrono::milliseconds> parse_duration(std::string_view text) {
  const auto bad = [&] {
    return fail(Errc::usage, fmt::format("'{}' is not a duration", escape(text)),
                "a duration is a whole number with a unit: 500ms, 10s, 2m, 1h");
  };
  uint64_t number = 0;
  const char* const last = text.data() + text.size();
  const auto [end, error] = std::from_chars(text.data(), last, number);
  if (error != std::errc{} || number == 0) {
    return bad();
  }
  const std::string_view unit(end, static_cast<size_t>(last - end));
  uint64_t factor = 0;
  if (unit == "ms") {
    factor = 1;
  } else if (unit == "s") {
    factor = 1000;
  } else if (unit == "m") {
    factor = 60'000;
  } else if (unit == "h") {
    factor = 3'600'000;
  } else {
    return bad();
  }
  constexpr uint64_t ten_years_ms = uint64_t{10} * 366 * 24 * 3'600'000;
  if (number > ten_years_ms / factor) {
    return bad();
  }
  return std::chrono::milliseconds(number * factor);
}

std::pair<int, int> major_minor(std::string_view version) {
  int major = 0;
  int minor = 0;
  const char* const last = version.data() + version.size();
  const auto [dot, error] = std::from_chars(version.data(), last, major);
  if (error == std::errc{} && dot != last && *dot == '.') {
    std::from_chars(dot + 1, last, minor);
  }
  return {major, minor};
}

bool glob_match(const std::string& pattern, const std::string& text) {
  return ::fnmatch(pattern.c_str(), text.c_str(), 0) == 0;
}

}  // namespace jemtrace
