#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "ledger/account.hpp"
#include "ledger/model.hpp"

/// What `list`, `image`, `stats` and `check` print, as plain data: render knows nothing of locate and BPF,
/// the cli converts.
namespace jemtrace::render {

struct ListRow {
  ledger::TargetInfo target;
  ledger::Sample sample;
};

/// A role found in an image, and the instruction that is probed for it, if any.
struct RoleReport {
  std::string role;      // "ecache_evict"
  std::string symbol;    // as spelled in the image; untrusted
  uint64_t offset = 0;   // of the function, in the file
  std::string found_by;  // "symtab", "dynsym", "recovered", ...
  ledger::Maybe<uint64_t> probe_offset;
  std::string instruction;                 // "push r15"; empty when not probed
  ledger::Maybe<std::string> cost_class;   // emulated, single_step; unset when not probed
  std::vector<std::string> evidence = {};  // recovered: the facts that agree
};

/// What can be read of jemalloc's numbers in a process, and by what knowledge.
struct StructuresReport {
  std::string found_by;                     // "known layout of 5.3.0"; empty: not even that
  ledger::Maybe<uint64_t> arenas;           // address of the array, as linked
  std::map<std::string, uint64_t> options;  // addresses of opt_*, as linked
  std::vector<std::string> readable;        // "counters of purges"
  std::vector<std::string> missing;         // and why, one clause each
  std::vector<std::string> evidence;        // the facts that agree
};

struct ImageReport {
  std::string path;                              // untrusted
  std::string build_id, version, linkage, tier;  // empty: unknown
  std::string prefix;                            // of the public API; empty: none
  std::string conf_variable;                     // "MALLOC_CONF", "_RJEM_MALLOC_CONF"
  ledger::Maybe<uint64_t> call_sites;            // known inside the image
  bool cached = false;                           // as it was found earlier
  std::vector<RoleReport> roles;
  std::vector<std::string> missing;            // roles wanted for this version, not found
  ledger::Maybe<StructuresReport> structures;  // unset: nothing is known
  std::vector<std::string> notes;              // one sentence each
};

/// Where the memory of one process is, now.
struct StatsReport {
  ledger::TargetInfo target;
  ledger::Account account;
  ledger::Maybe<ledger::Reading> reading;
  std::string unread_because;  // a clause, when there is no reading
  ledger::Maybe<ledger::Cgroup> cgroup;
  ledger::Host host;
  uint64_t sampling_ns = 0;  // reading /proc and the target's memory
  uint64_t page_bytes = 4096;
  bool arenas = false;   // text: one line per arena
  bool classes = false;  // text: one line per size class
};

enum class CheckStatus { ok, warn, fail };

struct CheckItem {
  std::string name;  // "BTF", "CAP_BPF", "perf_event_paranoid"
  CheckStatus status = CheckStatus::ok;
  std::string detail;  // what was found
  std::string hint;    // what to do; may be empty
};

const char* name(CheckStatus status);  // "ok", "warn", "fail"

/// What a user does not get to know when a role has no site. A clause: "sweeps and their causes are not
/// seen".
std::string what_missing_costs(const std::string& role);

}  // namespace jemtrace::render
