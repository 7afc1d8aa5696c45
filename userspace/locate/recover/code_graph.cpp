#include "locate/recover/code_graph.hpp"

#include <algorithm>

#include "locate/recover/graph_builder.hpp"

namespace jemtrace::locate::recover {

bool CodeFunction::mentions(uint64_t vaddr) const {
  return std::binary_search(references.begin(), references.end(), vaddr);
}

CodeGraph CodeGraph::build(const ElfFile& file, const CallFrames& frames, const DataView& data, uint64_t low,
                           uint64_t high) {
  return GraphBuilder(file, frames, data).build(low, high);
}

FunctionId CodeGraph::find(uint64_t vaddr) const {
  // Asked for each word of data: nearly all lead elsewhere. The functions are in ascending order.
  if (functions_.empty() || vaddr < functions_.front().start || vaddr > functions_.back().start) {
    return no_function;
  }
  const auto found = by_start_.find(vaddr);
  return found == by_start_.end() ? no_function : found->second;
}

FunctionSet CodeGraph::users_of(uint64_t vaddr) const {
  FunctionSet users;
  const auto add = [&](uint64_t address) {
    if (const auto found = users_.find(address); found != users_.end()) {
      users.insert(found->second.begin(), found->second.end());
    }
  };
  add(vaddr);
  if (const auto holders = holders_.find(vaddr); holders != holders_.end()) {
    std::for_each(holders->second.begin(), holders->second.end(), add);
  }
  return users;
}

FunctionSet CodeGraph::callers_of(External external) const {
  FunctionSet found;
  for (FunctionId id = 0; id < size(); ++id) {
    const auto& edges = functions_[id].edges;
    if (std::any_of(edges.begin(), edges.end(), [&](const Edge& e) { return e.external == external; })) {
      found.insert(id);
    }
  }
  return found;
}

FunctionSet CodeGraph::advisers(uint32_t advice) const {
  FunctionSet found;
  for (const FunctionId id : callers_of(External::madvise)) {
    const auto& edges = functions_[id].edges;
    if (std::any_of(edges.begin(), edges.end(), [&](const Edge& e) { return e.advice == advice; })) {
      found.insert(id);
    }
  }
  return found;
}

FunctionSet CodeGraph::reaching(const FunctionSet& goals, int depth) const {
  FunctionSet found = goals;
  FunctionSet edge = goals;
  for (int step = 0; step < depth && !edge.empty(); ++step) {
    FunctionSet next;
    for (const FunctionId id : edge) {
      for (const FunctionId caller : callers_[id]) {
        if (found.insert(caller).second) {
          next.insert(caller);
        }
      }
    }
    edge = std::move(next);
  }
  return found;
}

std::map<FunctionId, int> CodeGraph::reached(FunctionId from, int depth, const FunctionSet& barrier) const {
  std::map<FunctionId, int> found;
  if (from == no_function) {
    return found;
  }
  found.emplace(from, 0);
  std::vector<FunctionId> edge = {from};
  for (int step = 1; step <= depth && !edge.empty(); ++step) {
    std::vector<FunctionId> next;
    for (const FunctionId id : edge) {
      for (const FunctionId callee : callees_[id]) {
        if (!barrier.contains(callee) && found.emplace(callee, step).second) {
          next.push_back(callee);
        }
      }
    }
    edge = std::move(next);
  }
  return found;
}

}  // namespace jemtrace::locate::recover
