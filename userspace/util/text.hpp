#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

#include "util/result.hpp"

namespace jemtrace {

/// Makes an untrusted name (comm, path, cgroup) safe to print: control characters, bytes that are no UTF-8
/// and the C1 range become \xNN, so that no terminal escape passes through.
std::string escape(std::string_view untrusted);

/// "812 MB", "1.16 GB", "4.0 kB": three significant digits, powers of 1024 under the short names that ps and
/// top use.
std::string human_bytes(uint64_t bytes);
/// With a sign: "-96 MB", "+1.2 GB", "0".
std::string human_bytes_delta(int64_t bytes);
/// "850 ns", "6.1 us", "1.2 ms", "2.0 s".
std::string human_ns(uint64_t ns);
/// "10 991": digits in groups of three.
std::string human_count(uint64_t count);

/// "1 process", "10 991 processes".
std::string plural(uint64_t count, const char* one, const char* many);

/// "500ms", "10s", "2m", "1h": a duration needs a unit; Errc::usage otherwise. The range is 1 ms to 10 years.
Result<std::chrono::milliseconds> parse_duration(std::string_view text);

/// The two numbers that "5.3.0-0-g54eaed1d" or "6.1.0-13-amd64" begin with; 0 for one that is not there.
std::pair<int, int> major_minor(std::string_view version);

/// Shell pattern with *, ? and [..] over the whole of `text` (fnmatch(3)).
bool glob_match(const std::string& pattern, const std::string& text);

}  // namespace jemtrace
