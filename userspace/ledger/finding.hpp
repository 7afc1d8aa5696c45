#pragma once

#include <sys/types.h>

#include <optional>
#include <string>
#include <vector>

/// A diagnosis of one process, as plain data: made by explain, printed by render, exported by serve.
namespace jemtrace::ledger {

enum class Severity { ok, info, warning, critical };

/// One number that a finding rests on. nullopt: unknown, which is never shown as 0.
struct Evidence {
  std::string name;  // "lazyfree", "psi_some_avg10"
  std::optional<double> value;
  std::string unit;                 // "bytes", "percent", "pages", "ms", "ns", "per_second", "count"
  std::optional<double> threshold;  // the value that decides; unset: context only
};

struct Finding {
  std::string id;  // stable: "LAZYFREE_INFLATED"; docs/diagnoses.md has a section for each
  pid_t pid = 0;
  Severity severity = Severity::info;
  std::string title;
  std::vector<Evidence> evidence;
  std::string remedy;                   // prose
  std::vector<std::string> settings;    // whole variables for its next start, each an alternative
  std::vector<std::string> commands;    // for a shell, now; none of a process that has ended
  double confidence = 0;                // 0 to 1
  std::vector<std::string> unmeasured;  // one clause each: what could not be seen, and why
};

}  // namespace jemtrace::ledger
