#pragma once

#include <string>
#include <vector>

#include "advise/advice.hpp"
#include "util/result.hpp"

namespace jemtrace::cli {

/// The processes in a file of NDJSON: from `series` lines of jemtrace advise, else from the `interval` lines
/// of a trace, which are coarser and know no arenas. Lines of other kinds are passed over. Fails when nothing
/// in it can be simulated, with what is missing. What further files have of the same programs goes with them,
/// as recordings under other settings.
Result<std::vector<advise::Input>> read_inputs(const std::vector<std::string>& paths);

}  // namespace jemtrace::cli
