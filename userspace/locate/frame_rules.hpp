#pragma once

#include <optional>
#include <span>
#include <string>
#include <vector>

#include "locate/eh_frame.hpp"
#include "util/result.hpp"

namespace jemtrace::locate {

/// How to find the caller's frame at some places of a file's code, given as offsets in the file; nullopt
/// where nothing says. The file may be anybody's: a child process without privileges reads it, as in
/// isolated.hpp.
Result<std::vector<std::optional<FrameRule>>> frame_rules_isolated(int fd, const std::string& path,
                                                                   std::span<const uint64_t> offsets);

}  // namespace jemtrace::locate
