#include "locate/recover/ctl_tree.hpp"

#include <algorithm>
#include <optional>
#include <vector>

namespace jemtrace::locate::recover {
namespace {

constexpr uint64_t node_size = 40;
constexpr uint64_t max_children = 300;  // 5.3.1's "opt" has about 100
constexpr size_t max_nodes = 4000;
constexpr int max_depth = 6;

struct RawNode {
  std::string_view name;
  uint64_t children = 0, n_children = 0, handler = 0;
};

bool is_name(std::string_view text) {
  return !text.empty() && std::all_of(text.begin(), text.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_';
  });
}

/// The named node at `vaddr`; nullopt when it is none.
std::optional<RawNode> node_at(const DataView& data, uint64_t vaddr) {
  const auto named = data.word(vaddr);
  const auto name = data.word(vaddr + 8);
  const auto n_children = data.word(vaddr + 16);
  const auto children = data.word(vaddr + 24);
  const auto handler = data.word(vaddr + 32);
  if (!handler || !named || (*named & 0xff) != 1 || !name || !is_name(data.text(*name))) {
    return std::nullopt;
  }
  return RawNode{data.text(*name), *children, *n_children, *handler};
}

/// How many named nodes follow each other from `vaddr` on.
uint64_t length_of(const DataView& data, uint64_t vaddr) {
  uint64_t n = 0;
  while (n < max_children && node_at(data, vaddr + n * node_size)) {
    ++n;
  }
  return n;
}

struct Beginning {
  std::string_view first, second;
};

/// Tables that begin with nodes of two given names.
std::vector<uint64_t> find_tables(const DataView& data, Beginning beginning) {
  std::vector<uint64_t> found;
  data.for_each_run([&](uint64_t vaddr, const uint8_t* run, size_t n) {
    for (size_t i = 0; i + 7 < n && found.size() < 4; ++i) {
      if (word_of(run, i) == 1 && word_of(run, i + 5) == 1 &&
          data.text(word_of(run, i + 1)) == beginning.first &&
          data.text(word_of(run, i + 6)) == beginning.second) {
        found.push_back(vaddr + 8 * i);
      }
    }
  });
  return found;
}

/// Named nodes of this name, wherever they are.
std::vector<uint64_t> find_nodes(const DataView& data, std::string_view name) {
  std::vector<uint64_t> found;
  data.for_each_run([&](uint64_t vaddr, const uint8_t* run, size_t n) {
    for (size_t i = 0; i + 4 < n && found.size() < 2; ++i) {
      if (word_of(run, i) == 1 && data.text(word_of(run, i + 1)) == name) {
        found.push_back(vaddr + 8 * i);
      }
    }
  });
  return found;
}

}  // namespace

CtlTree CtlTree::find(const DataView& data, const ElfFile& file) {
  CtlTree tree;
  const std::vector<uint64_t> roots = find_tables(data, {"version", "epoch"});
  if (roots.size() != 1) {
    return tree;
  }
  tree.walk(data, file, roots.front(), length_of(data, roots.front()), "", 0);
  // arena.<i> is behind a function that checks the index: found by its content.
  for (const Beginning& beginning : {Beginning{"initialized", "decay"}, Beginning{"purge", "decay"}}) {
    const std::vector<uint64_t> arenas = find_tables(data, beginning);
    if (arenas.size() == 1 && tree.handler("arena.i.decay") == 0) {
      tree.walk(data, file, arenas.front(), length_of(data, arenas.front()), "arena.i", 1);
    }
  }
  // arenas.bin.<i>, too.
  if (const auto bins = find_tables(data, {"size", "nregs"}); bins.size() == 1) {
    tree.walk(data, file, bins.front(), length_of(data, bins.front()), "arenas.bin.i", 2);
  }
  // So is experimental.arenas.<i>, whose table has one node.
  if (const auto nodes = find_nodes(data, "pactivep"); nodes.size() == 1) {
    tree.walk(data, file, nodes.front(), 1, "experimental.arenas.i", 3);
  }
  return tree;
}

void CtlTree::walk(const DataView& data, const ElfFile& file, uint64_t table, uint64_t count,
                   const std::string& parent, int depth) {
  for (uint64_t i = 0; i < std::min(count, max_children) && nodes_.size() < max_nodes; ++i) {
    const auto raw = node_at(data, table + i * node_size);
    if (!raw) {
      return;
    }
    const std::string name = (parent.empty() ? "" : parent + ".") + std::string(raw->name);
    const uint64_t handler = file.executable(raw->handler) ? raw->handler : 0;
    nodes_.emplace(name, Node{table + i * node_size, handler});
    if (raw->n_children != 0 && raw->children != 0 && depth < max_depth) {
      walk(data, file, raw->children, raw->n_children, name, depth + 1);
    }
  }
}

const CtlTree::Node* CtlTree::node(std::string_view name) const {
  const auto found = nodes_.find(name);
  return found == nodes_.end() ? nullptr : &found->second;
}

uint64_t CtlTree::handler(std::string_view name) const {
  const Node* found = node(name);
  return found == nullptr ? 0 : found->handler;
}

}  // namespace jemtrace::locate::recover
