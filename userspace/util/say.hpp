#pragma once

#include <fmt/format.h>

#include <string>
#include <utility>

namespace jemtrace {

/// To standard error, as it is. What cannot be written there is lost: no result depends on it, and nothing
/// may end because its reader has gone (fmt::print would throw).
void tell(const std::string& text);

/// "jemtrace: ...", a line of standard error.
template <typename... Args>
void say(fmt::format_string<Args...> format, Args&&... args) {
  tell("jemtrace: " + fmt::format(format, std::forward<Args>(args)...) + "\n");
}

}  // namespace jemtrace
