#pragma once

#include <sys/types.h>

#include <chrono>
#include <cstdint>
#include <span>
#include <vector>

#include "ledger/kernel.hpp"
#include "ledger/reading.hpp"
#include "util/file.hpp"

namespace jemtrace::sample {

/// Reads /proc/PID/pagemap, and /proc/kpageflags when asked, for exactly these ranges: 10 ms and 60 ms per GB
/// present. The kernel holds the target's mmap lock for 2 MB at a time only. Errc::too_large when it takes
/// longer than `limit`. Pages of zeros, mapped by reading what was never written, are not present: RSS has
/// them not, either. They are told by their flags, which is asked of pages that are mapped more than once;
/// where page frames are hidden they count.
Result<ledger::Residency> residency(const ProcRoot& proc, pid_t pid, std::span<const ledger::Range> ranges,
                                    bool lazily, std::chrono::nanoseconds limit);

/// Of these ranges the pages that are there and freed lazily, in the order of addresses. Errc::denied where
/// page frames or /proc/kpageflags are hidden from us, Errc::too_large as above. One that was written to
/// since still counts until reclaim looks at it.
Result<std::vector<ledger::Range>> lazy_ranges(const ProcRoot& proc, pid_t pid,
                                               std::span<const ledger::Range> ranges,
                                               std::chrono::nanoseconds limit);

}  // namespace jemtrace::sample
