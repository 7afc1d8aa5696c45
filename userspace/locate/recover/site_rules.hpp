#pragma once

#include "locate/recover/recover.hpp"

namespace jemtrace::locate::recover {

/// Which calls lead to a memory system call or to a sweep, and what for.
std::vector<RecoveredSite> find_sites(const Subject& subject, const Findings& findings);

}  // namespace jemtrace::locate::recover
