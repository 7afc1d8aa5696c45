#pragma once

#include <string>

#include "explain/inputs.hpp"

/// What to set, in the spelling that this process understands.
namespace jemtrace::explain {

// Since when jemalloc has an option.
constexpr Version background_thread_since{5, 0, 0};
constexpr Version muzzy_decay_since{5, 0, 0};
constexpr Version percpu_arena_since{5, 0, 0};
constexpr Version oversize_since{5, 2, 0};  // before: experimental_huge_threshold, in no release
constexpr Version metadata_thp_since{5, 1, 0};
constexpr Version thp_since{5, 1, 0};
constexpr Version hpa_since{5, 3, 0};
constexpr Version batch_since{5, 3, 1};           // process_madvise_max_batch
constexpr Version oversize_obeys_since{5, 3, 1};  // the shortcut is not taken with background threads on
constexpr Version tick_on_free_since{5, 3, 0};    // threads that only free get a decay ticker: jemalloc#2251

/// Whether this process has such an option. Unknown versions count as having it: the advice then says so.
bool has(const Inputs& in, const Version& since);

/// `MALLOC_CONF="background_thread:true"` with the variable of this image's prefix; for options of an unknown
/// version followed by "(if this jemalloc knows it)". Empty when the version lacks it.
std::string set_conf(const Inputs& in, const std::string& options, const Version& since = {5, 0, 0});

/// How to change a decay time in the running process: "jemtrace stats -p 42 --mallctl=call --set ..."
std::string set_now(const Inputs& in, const std::string& setting);
/// jemtrace stats -p 42 --mallctl=call --purge
std::string purge_now(const Inputs& in);

/// "(5.3.0)", or "(version unknown)".
std::string version_text(const Inputs& in);

}  // namespace jemtrace::explain
