#pragma once

#include <string>

namespace jemtrace::cli {

/// What --help ends with: a few lines to copy, and the exit status. `verb` is spelled as the user types it;
/// empty: of jemtrace itself. Empty for a verb that has none.
std::string help_footer(const std::string& verb);

}  // namespace jemtrace::cli
