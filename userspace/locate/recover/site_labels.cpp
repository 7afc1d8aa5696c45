#include "locate/recover/site_labels.hpp"

#include <algorithm>

#include "locate/roles.hpp"

namespace jemtrace::locate::recover {
namespace {

constexpr uint32_t sys_exit = 60;

}  // namespace

void Labels::label_named() {
  for (const Named& named : found_.named) {
    if (const RoleEntry* entry = find_role(named.role)) {
      label(named.id, {entry->purpose, entry->cause});
    }
  }
}

/// The slots say what their functions are for; what they call on the way to the system call passes it on.
void Labels::label_hooks() {
  label_set(found_.wrappers, {JT_PASS});
  const auto& slots = found_.hooks->slots;
  const FunctionSet passing = {slots[slot_dalloc], slots[slot_commit], slots[slot_decommit],
                               slots[slot_purge_lazy], slots[slot_purge_forced]};
  for (const FunctionId id : passing) {
    label(id, {JT_PASS});
  }
  label(slots[slot_destroy], {JT_DESTROY});
  label(slots[slot_alloc], {JT_TRIM});
  const FunctionId destroy = found_.function("extent_destroy_wrapper");
  if (destroy != no_function) {
    const FunctionSet destroys = both(unlabelled(graph_.callers(destroy)),
                                      keys(graph_.reached(handler("arena.i.destroy"), handler_depth)));
    label_set(without(destroys, allocating()), {JT_DESTROY});
    FunctionSet impl = both(graph_.callees(destroy), graph_.callees(slots[slot_destroy]));
    label_set(without(impl, keys(graph_.reached(slots[slot_dalloc], 2))), {JT_DESTROY});
  }
  FunctionSet on_the_way = between(passing, giving_back(), wrapper_depth, found_.hpa);
  on_the_way.merge(between({slots[slot_commit], slots[slot_decommit]}, calls_.mmap, 3));
  on_the_way.erase(no_function);
  label_set(without(on_the_way, found_.boot), {JT_PASS});
}

/// What the alloc hook maps with also trims: a mapping too large, or at the wrong place.
void Labels::label_mapping() {
  FunctionSet maps = both(below({found_.hooks->slots[slot_alloc]}, wrapper_depth), calls_.mmap);
  maps.merge(both(below({found_.hooks->slots[slot_alloc]}, 3), graph_.callers_of(External::munmap)));
  for (const FunctionId id : found_.dalloc_like) {
    maps = without(maps, graph_.callees(id));  // decommit, which is a way to purge
  }
  // os_pages_map and its callers, which trim.
  FunctionSet unmaps = labelled_with(JT_PASS);
  unmaps = both(unmaps, calls_.munmap);
  for (const FunctionId id : below({found_.hooks->slots[slot_alloc]}, wrapper_depth)) {
    const bool trims = !both(graph_.callees(id), unmaps).empty() && !both(graph_.callees(id), maps).empty();
    if (trims) {
      maps.insert(id);
    }
  }
  // What tests which hooks are in force does more than map: extent_alloc_dss.
  std::erase_if(maps, [&](FunctionId id) {
    const auto& edges = graph_.at(id).edges;
    return found_.hooks->users.contains(id) || std::any_of(edges.begin(), edges.end(), [&](const Edge& edge) {
             return by_site_.contains(edge.transfer.vaddr);
           });
  });
  label_set(without(maps, found_.boot), {JT_TRIM});
}

/// The default branch of a purge: whoever calls it can call the purge hook instead.
bool Labels::is_purge_branch(FunctionId id) const {
  const auto& callers = graph_.callers(id);
  return std::any_of(callers.begin(), callers.end(), [&](FunctionId caller) {
    return found_.hooks->calls(caller, slot_purge_forced) || found_.hooks->calls(caller, slot_purge_lazy) ||
           found_.dalloc_like.contains(caller) || found_.sweep_like.contains(caller);
  });
}

/// MADV_DONTNEED where no purge hook is the alternative, in the path of an allocation: to zero memory.
bool Labels::zero_fills(FunctionId id, const FunctionSet& allocating) const {
  const bool purges = found_.hooks->calls(id, slot_purge_forced) ||
                      found_.hooks->calls(id, slot_purge_lazy) || found_.hooks->calls(id, slot_dalloc) ||
                      found_.hooks->calls(id, slot_destroy) || found_.hooks->holds(id) ||
                      found_.hpa.contains(id) || found_.boot.contains(id) || found_.sweep_like.contains(id) ||
                      found_.dalloc_like.contains(id);
  if (purges || graph_.address_taken(id) || is_purge_branch(id)) {
    return false;
  }
  const auto& edges = graph_.at(id).edges;
  const bool fills = std::any_of(edges.begin(), edges.end(),
                                 [](const Edge& edge) { return edge.external == External::memset; });
  return fills || allocating.contains(id);
}

void Labels::label_zero_fills() {
  FunctionSet splitters;
  for (const auto& [id, slots] : found_.hooks->users) {
    if (slots.contains(slot_split) || slots.contains(slot_alloc) || slots.contains(slot_commit)) {
      splitters.insert(id);
    }
  }
  const FunctionSet allocating = below(splitters, 3);
  const FunctionId forced = found_.function("pages_purge_forced");
  FunctionSet candidates = calls_.dontneed;
  if (forced != no_function) {
    candidates.insert(graph_.callers(forced).begin(), graph_.callers(forced).end());
  }
  for (const FunctionId id : unlabelled(candidates)) {
    if (!zero_fills(id, allocating)) {
      continue;
    }
    for (const Edge& edge : graph_.at(id).edges) {
      if (edge.advice == madv_dontneed || (forced != no_function && edge.callee == forced)) {
        by_site_.emplace(edge.transfer.vaddr, Label{JT_ZERO_FILL});
      }
    }
  }
}

/// glibc's start_thread in a static program: gives back its stack, then ends the thread by itself.
void Labels::label_thread_ends() {
  for (const FunctionId id : unlabelled(calls_.dontneed)) {
    for (const Edge& edge : graph_.at(id).edges) {
      if (edge.transfer.system_call && edge.transfer.number == sys_exit) {
        label(id, {JT_THREAD_STACK});
      }
    }
  }
}

/// What a compiler split off between a purge and its system call.
void Labels::label_passing() {
  FunctionSet roots = found_.sweep_like;
  for (const char* role : {"extent_dalloc_wrapper", "extent_record", "extent_destroy_wrapper"}) {
    if (const FunctionId id = found_.function(role); id != no_function) {
      roots.insert(id);
    }
  }
  FunctionSet barrier;
  for (const auto& [id, what] : labels_) {
    if (what.purpose != JT_PASS) {
      barrier.insert(id);
    }
  }
  FunctionSet candidates = unlabelled(between(roots, giving_back(), wrapper_depth, barrier));
  std::erase_if(candidates, [&](FunctionId id) {
    const auto& edges = graph_.at(id).edges;
    return calls_.mmap.contains(id) || graph_.address_taken(id) ||
           std::any_of(edges.begin(), edges.end(),
                       [&](const Edge& edge) { return by_site_.contains(edge.transfer.vaddr); });
  });
  // Only what nobody else calls: a function of the metadata allocator is below a purge as well.
  const auto used_elsewhere = [&](FunctionId id) {
    const FunctionSet elsewhere = without(without(graph_.callers(id), roots), candidates);
    return std::any_of(elsewhere.begin(), elsewhere.end(), [&](FunctionId caller) {
      const auto what = labels_.find(caller);
      return what == labels_.end() || what->second.purpose != JT_PASS;
    });
  };
  for (size_t before = 0; before != candidates.size();) {
    before = candidates.size();
    std::erase_if(candidates, used_elsewhere);
  }
  label_set(candidates, {JT_PASS});
}

}  // namespace jemtrace::locate::recover
