#include "locate/recover/site_rules.hpp"

#include <algorithm>

#include "locate/recover/site_labels.hpp"

namespace jemtrace::locate::recover {
namespace {

constexpr size_t max_sites = 20000;
constexpr uint32_t madv_free = 8;

}  // namespace

void Labels::add(const Edge& edge, Label what) {
  const Transfer& transfer = edge.transfer;
  if (transfer.return_vaddr == 0 || transfer.system_call || emitted_.size() >= max_sites) {
    return;
  }
  if (const auto own = by_site_.find(transfer.vaddr); own != by_site_.end()) {
    what = own->second;
  }
  emitted_.emplace(transfer.return_vaddr,
                   RecoveredSite{transfer.vaddr, transfer.return_vaddr, what.purpose, what.cause});
}

void Labels::emit_function(FunctionId id, const Label& what) {
  for (const Edge& edge : graph_.at(id).edges) {
    add(edge, what);
  }
}

/// A function that ends by jumping to a wrapper leaves no frame: its callers' sites speak for it.
void Labels::emit_inherited() {
  const FunctionSet excluded = found_.hooks ? allocating() : FunctionSet{};
  for (const auto& [id, what] : labels_) {
    const auto& edges = graph_.at(id).edges;
    const bool jumps = std::any_of(edges.begin(), edges.end(), [&](const Edge& edge) {
      const auto callee = labels_.find(edge.callee);
      return edge.transfer.return_vaddr == 0 && callee != labels_.end() && callee->second.purpose == JT_PASS;
    });
    if (!jumps || what.purpose == JT_PASS || what.purpose == JT_UNCLASSIFIED || what.purpose == JT_TRIM) {
      continue;
    }
    for (const FunctionId caller : without(unlabelled(graph_.callers(id)), excluded)) {
      for (const Edge& edge : graph_.at(caller).edges) {
        if (edge.callee == id) {
          add(edge, {what.purpose});
        }
      }
    }
  }
}

/// Calls of functions without a label: the ones that a rule proved, and system calls of jemalloc's own, which
/// are no program's.
void Labels::emit_unlabelled() {
  FunctionSet own;
  for (const auto& [name, node] : subject_.tree.nodes()) {
    if (const FunctionId id = node.handler == 0 ? no_function : graph_.find(node.handler);
        id != no_function) {
      own.insert(id);
    }
  }
  own = below(own, 5);
  own.merge(below(found_.hooks ? labelled_with(JT_PASS) : FunctionSet{}, 1));
  for (FunctionId id = 0; id < graph_.size(); ++id) {
    if (labels_.contains(id)) {
      continue;
    }
    const bool uses_hooks = found_.hooks && found_.hooks->users.contains(id);
    for (const Edge& edge : graph_.at(id).edges) {
      const bool memory = edge.external >= External::madvise && edge.external <= External::process_madvise;
      if (by_site_.contains(edge.transfer.vaddr)) {
        add(edge, {});
      } else if (memory && (own.contains(id) || uses_hooks)) {
        const bool other = edge.advice && *edge.advice != madv_dontneed && *edge.advice != madv_free;
        add(edge, {other ? JT_OTHER_ADVICE : JT_UNCLASSIFIED});
      }
    }
  }
}

void Labels::emit() {
  for (const auto& [id, what] : labels_) {
    emit_function(id, what);
  }
  emit_inherited();
  emit_unlabelled();
  sites_.reserve(emitted_.size());
  for (const auto& [vaddr, site] : emitted_) {
    sites_.push_back(site);
  }
}

std::vector<RecoveredSite> find_sites(const Subject& subject, const Findings& findings) {
  return Labels(subject, findings).sites();
}

}  // namespace jemtrace::locate::recover
