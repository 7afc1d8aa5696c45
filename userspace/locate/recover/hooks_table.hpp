#pragma once

#include <array>
#include <map>
#include <optional>

#include "locate/recover/code_graph.hpp"

namespace jemtrace::locate::recover {

/// extent_hooks_t: alloc, dalloc, destroy, commit, decommit, purge_lazy, purge_forced, split, merge, in this
/// order from 5.0.1 to dev. The layout is public API: a compiler cannot change it.
enum HookSlot : uint8_t {
  slot_alloc,
  slot_dalloc,
  slot_destroy,
  slot_commit,
  slot_decommit,
  slot_purge_lazy,
  slot_purge_forced,
  slot_split,
  slot_merge,
  n_slots
};

struct HooksTable {
  uint64_t vaddr = 0;
  std::array<FunctionId, n_slots> slots{};
  int score = 0;  // of 5: slots besides the two of the purges that reach their system call
  /// The functions that compare with or load the table's address, and through which slots they call.
  std::map<FunctionId, std::set<uint8_t>> users;

  [[nodiscard]] bool holds(FunctionId id) const;
  [[nodiscard]] bool calls(FunctionId id, uint8_t slot) const;
};

/// The functions that reach the system calls of an allocator, from the calls themselves.
struct SystemCalls {
  FunctionSet free, dontneed, huge, nohuge, munmap, mmap, process_madvise;
  explicit SystemCalls(const CodeGraph& graph);
};

/// The table of default hooks; nullopt when there is none, or when two fit equally.
std::optional<HooksTable> find_hooks(const DataView& data, const CodeGraph& graph, const SystemCalls& calls);

/// The functions of the huge page allocator's table: map, unmap, purge, hugify, dehugify, ... Empty when
/// there is none.
FunctionSet find_hpa_hooks(const DataView& data, const CodeGraph& graph, const SystemCalls& calls);

}  // namespace jemtrace::locate::recover
