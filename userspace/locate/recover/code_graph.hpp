#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <span>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "locate/eh_frame.hpp"
#include "locate/elf_file.hpp"
#include "locate/recover/data_view.hpp"
#include "locate/recover/function_scan.hpp"

namespace jemtrace::locate::recover {

/// A function of the graph by its number.
using FunctionId = uint32_t;
inline constexpr FunctionId no_function = 0xffffffff;
using FunctionSet = std::set<FunctionId>;

/// A transfer whose target is known: to a function of the graph, out of the image, or through a pointer.
struct Edge {
  Transfer transfer;
  FunctionId callee = no_function;
  External external = External::none;
  std::optional<uint32_t> advice;  // of madvise, when constant
};

struct CodeFunction {
  struct Piece {
    uint64_t start = 0, size = 0;
  };
  uint64_t start = 0;
  std::vector<Piece> pieces;  // the entry's first; then .cold ones
  std::vector<Edge> edges;
  std::vector<uint64_t> references;  // ascending
  uint16_t arguments = 0;
  bool whole = false;

  [[nodiscard]] bool takes(Register reg) const { return (arguments >> reg & 1) != 0; }
  [[nodiscard]] bool mentions(uint64_t vaddr) const;
  [[nodiscard]] uint64_t size() const { return pieces.empty() ? 0 : pieces.front().size; }
};

/// The functions around jemalloc's mallctl handlers, and who calls whom.
///
/// A function begins where the unwinder's table says. A piece that only jumps lead to, and whose frame is
/// there already at its first instruction, is a .cold part of the function that jumps.
class CodeGraph {
 public:
  /// Reads the code from 1 MiB before `low` to 1 MiB behind `high` and the pieces its jumps lead to.
  static CodeGraph build(const ElfFile& file, const CallFrames& frames, const DataView& data, uint64_t low,
                         uint64_t high);

  [[nodiscard]] size_t size() const { return functions_.size(); }
  [[nodiscard]] const CodeFunction& at(FunctionId id) const { return functions_[id]; }
  /// The function that begins at `vaddr`.
  [[nodiscard]] FunctionId find(uint64_t vaddr) const;
  [[nodiscard]] const FunctionSet& callees(FunctionId id) const { return callees_[id]; }
  [[nodiscard]] const FunctionSet& callers(FunctionId id) const { return callers_[id]; }
  /// Its address is in data or in an instruction.
  [[nodiscard]] bool address_taken(FunctionId id) const { return taken_.contains(id); }

  /// Some function's code has this distance from a register, as to a member of a large struct.
  [[nodiscard]] bool uses_member(uint32_t distance) const { return members_.contains(distance); }

  /// The functions that mention `vaddr`, by itself or by a word of data that holds it.
  [[nodiscard]] FunctionSet users_of(uint64_t vaddr) const;
  /// The functions with a call out of the image.
  [[nodiscard]] FunctionSet callers_of(External external) const;
  [[nodiscard]] FunctionSet advisers(uint32_t advice) const;

  /// All functions from which one of `goals` is reached in at most `depth` calls, with the goals.
  [[nodiscard]] FunctionSet reaching(const FunctionSet& goals, int depth) const;
  /// All functions that `from` reaches in at most `depth` calls, with their distance. Does not go through
  /// `barrier`.
  [[nodiscard]] std::map<FunctionId, int> reached(FunctionId from, int depth,
                                                  const FunctionSet& barrier = {}) const;

  /// The code of the C library's own system call wrappers: address to what they do.
  [[nodiscard]] const std::unordered_map<uint64_t, External>& wrappers() const { return wrappers_; }

 private:
  friend class GraphBuilder;
  std::vector<CodeFunction> functions_;
  std::unordered_map<uint64_t, FunctionId> by_start_;
  std::vector<FunctionSet> callees_, callers_;
  FunctionSet taken_;
  std::unordered_set<uint32_t> members_;
  std::unordered_map<uint64_t, External> wrappers_;
  std::unordered_map<uint64_t, std::vector<uint64_t>> holders_;  // value in data -> words that hold it
  std::unordered_map<uint64_t, std::vector<FunctionId>> users_;  // address -> functions that mention it
};

}  // namespace jemtrace::locate::recover
