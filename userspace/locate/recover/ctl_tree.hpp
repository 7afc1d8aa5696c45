#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>

#include "locate/recover/data_view.hpp"

namespace jemtrace::locate::recover {

/// jemalloc's mallctl() namespace, which is a tree of tables in data: what its handlers are, by name.
///
/// A table is an array of ctl_named_node_t { bool named; const char *name; size_t nchildren; const ctl_node_t
/// *children; int (*ctl)(...); }, the same from 5.0.1 to dev. The root is the one that begins with "version"
/// and "epoch".
class CtlTree {
 public:
  struct Node {
    uint64_t vaddr = 0;    // of the ctl_named_node_t
    uint64_t handler = 0;  // 0: an inner node
  };

  /// Empty when there is no such table, or more than one.
  static CtlTree find(const DataView& data, const ElfFile& file);

  /// By dotted name: "epoch", "opt.dirty_decay_ms", "arena.i.decay". nullptr when unknown.
  [[nodiscard]] const Node* node(std::string_view name) const;
  /// 0 when unknown.
  [[nodiscard]] uint64_t handler(std::string_view name) const;
  [[nodiscard]] const std::map<std::string, Node, std::less<>>& nodes() const { return nodes_; }

 private:
  void walk(const DataView& data, const ElfFile& file, uint64_t table, uint64_t count,
            const std::string& parent, int depth);

  std::map<std::string, Node, std::less<>> nodes_;
};

}  // namespace jemtrace::locate::recover
