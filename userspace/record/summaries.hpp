#pragma once

#include <cstdio>
#include <string>
#include <vector>

#include "ledger/fleet.hpp"
#include "util/result.hpp"

/// Reads back what `jemtrace -f json` and `jemtrace merge -f json` wrote. The files come from other hosts:
/// they are taken for hostile, and what is read is bounded.
namespace jemtrace::record {

/// A longer line is refused. The longest that jemtrace writes, a summary with all its call sites, has some
/// hundred KiB.
constexpr size_t max_line_bytes = size_t{4} << 20;

struct Summaries {
  ledger::Fleet fleet;
  std::vector<std::string> warnings;  // "FILE:LINE: cut off ...", escaped
};

/// Reads `file`, which messages call `name`, to its end. One file may hold several runs one after the other,
/// and lines of other kinds, which are passed over. Fails with "NAME:LINE: what" and counts nothing of it:
/// Errc::malformed for what jemtrace does not write, Errc::too_large beyond the bounds, Errc::usage for a run
/// that comes twice. A last line that is cut off is a warning.
Result<Summaries> read_summaries(std::FILE* file, const std::string& name);

}  // namespace jemtrace::record
