#include "locate/recover/site_labels.hpp"

namespace jemtrace::locate::recover {

/// What purges for a decay pass, and what lies between arena_decay and the sweep.
void Labels::label_decay() {
  label_set(unlabelled(found_.sweep_like), {JT_PURGE_SWEEP});
  FunctionId top = found_.function("arena_decay_impl");
  top = top != no_function ? top : found_.function("arena_decay");
  if (top != no_function) {
    const FunctionSet inner =
        both(keys(graph_.reached(top, 3, found_.sweep_like)), graph_.reaching(found_.sweep_like, 2));
    label_set(unlabelled(inner), {JT_PURGE_SWEEP});
  }
}

/// A walk for the cause of a sweep has to come through to the handlers and to the background thread.
void Labels::label_causes() {
  const FunctionSet leads = graph_.reaching(found_.sweep_like, handler_depth);
  FunctionSet tops;
  for (const char* name : {"arena.i.decay", "arena.i.purge", "arena.i.dirty_decay_ms",
                           "arena.i.muzzy_decay_ms", "arena.i.destroy", "thread.idle"}) {
    if (const FunctionId id = handler(name); id != no_function) {
      tops.insert(id);
    }
  }
  if (found_.background != no_function && leads.contains(found_.background)) {
    label(found_.background, {JT_UNCLASSIFIED, JT_CAUSE_BACKGROUND});
    tops.insert(found_.background);
  }
  // A new decay time applies at once. The two handlers are thin, and jump to what they share.
  const FunctionId dirty = handler("arena.i.dirty_decay_ms");
  const FunctionId muzzy = handler("arena.i.muzzy_decay_ms");
  if (dirty != no_function && muzzy != no_function) {
    FunctionSet shared = both(both(graph_.callees(dirty), graph_.callees(muzzy)), leads);
    std::erase_if(shared, [&](FunctionId id) { return graph_.callers(id) != FunctionSet{dirty, muzzy}; });
    label_set(unlabelled(shared), {JT_UNCLASSIFIED, JT_CAUSE_CTL_DECAY});
  }
  label_set(unlabelled(between(tops, found_.sweep_like, handler_depth, ticking_)), {JT_UNCLASSIFIED});
}

/// arena_decay(tsdn, arena, is_background_thread, all): a tick passes false and false. Where a thread leaves
/// its arena, `all` is true: tcache_destroy and arena_migrate.
void Labels::label_callers_of_decay() {
  const FunctionId decay = found_.function("arena_decay");
  if (decay == no_function) {
    return;
  }
  for (const FunctionId caller : without(graph_.callers(decay), by_control(2))) {
    for (const Edge& edge : graph_.at(caller).edges) {
      const Transfer& transfer = edge.transfer;
      if (edge.callee != decay || transfer.rdx != 0U || (!transfer.rcx && !transfer.rcx_may_be_one)) {
        continue;
      }
      ticking_.insert(caller);
      if (transfer.rcx == 1U || transfer.rcx_may_be_one) {
        label_thread_exit(caller, edge);
      }
    }
  }
  label_immediate_decay(decay);
}

/// The calls that come before a jump count as well: the one that jumps has no frame any more.
void Labels::label_thread_exit(FunctionId caller, const Edge& edge) {
  constexpr Label left = {JT_UNCLASSIFIED, JT_CAUSE_THREAD_EXIT};
  if (edge.transfer.return_vaddr != 0) {
    by_site_.emplace(edge.transfer.vaddr, left);
    return;
  }
  FunctionSet jumpers = {caller};
  for (int depth = 0; depth < 4 && !jumpers.empty(); ++depth) {
    FunctionSet next;
    for (const FunctionId jumper : jumpers) {
      label(jumper, left);
      for (const FunctionId above : without(graph_.callers(jumper), jumpers)) {
        for (const Edge& call : graph_.at(above).edges) {
          if (call.callee == jumper && call.transfer.return_vaddr != 0) {
            by_site_.emplace(call.transfer.vaddr, left);
          } else if (call.callee == jumper) {
            next.insert(above);
          }
        }
      }
    }
    jumpers = unlabelled(next);
  }
}

/// When dirty_decay_ms is 0, arena_decay_impl is called past arena_decay: once, for the dirty pages, with
/// true for `all`, its last argument.
void Labels::label_immediate_decay(FunctionId decay) {
  const FunctionId impl = found_.function("arena_decay_impl");
  if (impl == no_function || !graph_.callees(decay).contains(impl)) {
    return;
  }
  FunctionSet others = without(unlabelled(graph_.callers(impl)), graph_.callees(decay));
  others = without(others, keys(graph_.reached(found_.background, 3)));
  for (const FunctionId id : without(others, by_control(1))) {
    int calls = 0;
    bool all = false;
    for (const Edge& edge : graph_.at(id).edges) {
      if (edge.callee == impl) {
        ++calls;
        all = (subject_.family >= Family::v53 ? edge.transfer.stacked : edge.transfer.r9) == 1U;
      }
    }
    if (calls == 1 && all) {
      label(id, {JT_UNCLASSIFIED, JT_CAUSE_ZERO_DECAY});
    }
  }
}

/// What the handlers that decay by themselves reach in few calls.
FunctionSet Labels::by_control(int depth) const {
  FunctionSet ids;
  for (const char* name :
       {"arena.i.destroy", "arena.i.reset", "thread.idle", "arena.i.decay", "arena.i.purge"}) {
    ids.merge(keys(graph_.reached(handler(name), depth)));
  }
  return ids;
}

}  // namespace jemtrace::locate::recover
