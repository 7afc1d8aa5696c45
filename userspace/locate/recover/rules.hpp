#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "locate/recover/ctl_tree.hpp"
#include "locate/recover/hooks_table.hpp"
#include "locate/version.hpp"

namespace jemtrace::locate::recover {

/// A function under the name that jemalloc's source gives it.
struct Named {
  std::string role;  // as in the role table
  FunctionId id = no_function;
  std::vector<std::string> evidence;  // independent facts, at least two
};

/// What the rules work on.
struct Subject {
  const DataView& data;
  const CtlTree& tree;
  const CodeGraph& graph;
  Family family = Family::unknown;
};

/// What the rules found out.
struct Findings {
  std::vector<Named> named;
  std::optional<HooksTable> hooks;
  FunctionSet hpa;          // the huge page allocator's hooks
  FunctionSet boot;         // try advice at start-up
  FunctionSet wrappers;     // pass a purge on, under whatever name
  FunctionSet dalloc_like;  // return memory by the hook, or purge it
  FunctionSet sweep_like;   // purge for a decay pass; several when the sweep is not certain
  FunctionSet below_decay;  // reached by both arena.i.decay and arena.i.purge
  FunctionId background = no_function;

  [[nodiscard]] FunctionId function(std::string_view role) const;
  [[nodiscard]] bool is_named(FunctionId id) const;
};

/// Names functions, each only when exactly one candidate is left. Prefers missing to wrong.
Findings apply_rules(const Subject& subject);

}  // namespace jemtrace::locate::recover
