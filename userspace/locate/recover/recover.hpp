#pragma once

#include <optional>
#include <string>
#include <vector>

#include "locate/eh_frame.hpp"
#include "locate/elf_file.hpp"
#include "locate/recover/rules.hpp"
#include "locate/version.hpp"

/// Finds jemalloc's private functions in x86-64 code without symbols.
///
/// What survives `strip -s`: segments, relocations, imports and .eh_frame. From these come the mallctl tables
/// (handlers with names), the table of default extent hooks (functions with known duties) and the system
/// calls with constant advice; the call graph between them leaves few candidates for each function that
/// matters. A function is named only when facts of different kinds agree and exactly one candidate is left.
namespace jemtrace::locate::recover {

struct RecoveredFunction {
  std::string role;
  uint64_t vaddr = 0;
  std::vector<CodeFunction::Piece> pieces;  // the main one first, then .cold ones
  std::vector<std::string> evidence;
};

/// A call instruction of jemalloc and what it means to a walk up the stack.
struct RecoveredSite {
  uint64_t vaddr = 0, return_vaddr = 0;
  jt_purpose purpose = JT_PASS;
  jt_cause cause = JT_CAUSE_UNKNOWN;
};

struct Recovered {
  std::vector<RecoveredFunction> functions;  // ascending by address
  std::vector<RecoveredSite> sites;          // ascending by return address
  bool sweep = false;                        // the function that makes a decay pass is among them

  [[nodiscard]] const RecoveredFunction* function(std::string_view role) const;
};

/// What is read of an image before any rule is applied to it.
struct Survey {
  DataView data;
  CtlTree tree;
  std::optional<CodeGraph> graph;  // nullopt: the image holds no mallctl table

  static Survey make(const ElfFile& file, const CallFrames& frames);
};

/// Empty when the image holds no mallctl table.
Recovered recover(const Survey& survey, Family family);

}  // namespace jemtrace::locate::recover
