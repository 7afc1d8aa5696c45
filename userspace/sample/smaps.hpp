#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string_view>
#include <vector>

#include "ledger/kernel.hpp"
#include "util/file.hpp"

namespace jemtrace::sample {

/// In the order of addresses. Lines that make no sense are left out.
std::vector<ledger::Vma> parse_smaps(std::string_view text);

/// Walks the page tables as smaps_rollup does, and writes a text of 0.7 kB per mapping. At most 128 MB of
/// text (180 000 mappings): Errc::too_large beyond.
Result<std::vector<ledger::Vma>> read_smaps(const ProcRoot& proc, pid_t pid);

}  // namespace jemtrace::sample
