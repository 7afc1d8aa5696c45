#pragma once

#include <string>

#include "read/call/caller.hpp"

/// jemalloc's own heap profiler, in a process that was started with it.
namespace jemtrace::read {

/// Errc::unsupported when the build has none (config.prof), or the process did not enable it (opt.prof): it
/// cannot be enabled later.
Status check_prof(Caller& caller);

/// prof.dump: the process writes the file, with its rights and in its mount namespace. `path` is absolute.
Status prof_dump(Caller& caller, const std::string& path);
/// prof.active: whether allocations are sampled. Gives what it was before; confirmed by reading it back.
Result<bool> prof_activate(Caller& caller, bool active);
/// experimental.prof_recent.alloc_dump: the latest sampled allocations, as JSON. jemalloc hands it over piece
/// by piece and we take it.
Result<std::string> prof_recent(Caller& caller);

}  // namespace jemtrace::read
