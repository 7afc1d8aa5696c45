#pragma once

#include <map>
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

/// `MALLOC_CONF="dirty_decay_ms:500,background_thread:true"`: the variable of this image's prefix, with what
/// the process has set there already, unless `options` has it, too. For a shell: of what the process has set,
/// only names and values without characters that mean something there.
std::string set_conf(const Inputs& in, const std::string& options);
/// The same of options that were meant for another variable.
std::string set_conf(const Inputs& in, const std::map<std::string, std::string>& options);

/// How to change a decay time in the running process: "jemtrace stats -p 42 --mallctl=call --set ..."
std::string set_now(const Inputs& in, const std::string& setting);
/// jemtrace stats -p 42 --mallctl=call --purge
std::string purge_now(const Inputs& in);

/// "5.3.0", or "of unknown version".
std::string version_text(const Inputs& in);
std::string version_text(const Version& version);

}  // namespace jemtrace::explain
