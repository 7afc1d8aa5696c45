#include <algorithm>

#include "locate/recover/rule_set.hpp"

/// The functions between the mallctl handlers and the sweep, and those that take and return extents.
namespace jemtrace::locate::recover {
namespace {

constexpr int chain_depth = 6;
constexpr int clock_depth = 3;
constexpr uint64_t small_function = 64;
constexpr uint64_t least_record = 250;  // extent_record is inlined into its callers or larger than that
constexpr uint64_t least_evict = 150;
constexpr int background_steps = 4;

}  // namespace

/// The functions of the graph among `functions` from which the sweep is at most `depth` calls away.
FunctionSet RuleSet::toward_sweep(const FunctionSet& functions, int depth) const {
  return both(functions, graph_.reaching({sweep_}, depth));
}

void RuleSet::name_callers_of_sweep() {
  name("background_thread_entry",
       both({out.background},
            sweep_ == no_function ? FunctionSet{} : graph_.reaching({sweep_}, handler_depth)),
       {"names its thread jemalloc_bg_thd", "leads to the sweep"});
  if (sweep_ == no_function || decay_ == no_function || purge_ == no_function) {
    return;
  }
  name_decay_chain();
  const FunctionId impl = out.function("arena_decay_impl");
  name_below_impl(impl != no_function ? impl : out.function("arena_decay"));
  name_deferred_work();
}

void RuleSet::name_decay_chain() {
  const FunctionSet shared = toward_sweep(both(graph_.callees(decay_), graph_.callees(purge_)), chain_depth);
  if (shared.size() != 1) {
    return;
  }
  const FunctionId first = *shared.begin();
  const auto four_arguments = [&](FunctionId id) {
    return graph_.at(id).takes(rcx) && !graph_.at(id).takes(r8);
  };
  FunctionId decay = no_function;
  if (below_background_.contains(first)) {
    if (four_arguments(first)) {
      name("arena_decay", first,
           {"called by both arena.i.decay and arena.i.purge", "below background_thread_entry",
            "takes 4 arguments"});
      decay = first;
    }
  } else {
    name("arena_i_decay", first,
         {"called by both arena.i.decay and arena.i.purge", "leads to the sweep",
          "not below background_thread_entry"});
    FunctionSet next;
    for (int depth = 0; depth <= 4 && next.empty(); ++depth) {
      next = toward_sweep(graph_.callees(first), depth);
    }
    if (next.size() == 1 && *next.begin() != sweep_) {
      const FunctionId id = *next.begin();
      if (graph_.at(id).takes(r8)) {
        name("arena_decay_impl", id, {"arena_i_decay's way to the sweep", "takes more than 4 arguments"});
      } else if (name("arena_decay", id, {"arena_i_decay's way to the sweep", "takes at most 4 arguments"})) {
        decay = id;
      }
    }
  }
  if (decay == no_function) {
    return;
  }
  const FunctionSet next = without(toward_sweep(graph_.callees(decay), 4), {decay});
  FunctionSet gates;
  for (const FunctionId id : next) {
    const FunctionSet others = without(next, {id});
    if (id != sweep_ && both(others, graph_.callees(id)) == others) {
      gates.insert(id);
    }
  }
  name("arena_decay_impl", gates,
       {"arena_decay's way to the sweep", "whatever else arena_decay calls on that way is called by it too"});
}

/// Up to 5.2 nstime_update is a variable that holds a function: code finds it through the GOT.
bool RuleSet::asks_through_pointer(FunctionId id) const {
  const FunctionSet clocks = graph_.callers_of(External::clock);
  const auto holds_clock = [&](std::optional<uint64_t> variable) {
    const auto held = variable ? subject_.data.word(*variable) : std::nullopt;
    return held && clocks.contains(graph_.find(*held));
  };
  const auto& references = graph_.at(id).references;
  return std::any_of(references.begin(), references.end(), [&](uint64_t reference) {
    return holds_clock(reference) || holds_clock(subject_.data.word(reference));
  });
}

/// pac_maybe_decay_purge asks for the time, pac_decay_all does not.
void RuleSet::name_below_impl(FunctionId impl) {
  if (impl == no_function) {
    return;
  }
  FunctionSet candidates = both(graph_.callees(impl), graph_.callers(sweep_));
  candidates = without(candidates, {sweep_, impl, out.function("arena_decay")});
  FunctionSet asks_clock;
  for (const FunctionId id : candidates) {
    const FunctionSet below = keys(graph_.reached(id, clock_depth, {sweep_}));
    const bool asks = !both(below, graph_.callers_of(External::clock)).empty() || asks_through_pointer(id);
    if (asks && !without(graph_.callees(id), {sweep_}).empty()) {
      asks_clock.insert(id);
    }
  }
  if (graph_.callers_of(External::clock).empty() && candidates.size() == 2) {
    // A static program: the clock has no name. The one that does more is the one that asks.
    const FunctionId a = *candidates.begin();
    const FunctionId b = *candidates.rbegin();
    const bool a_larger =
        graph_.callees(a).size() > graph_.callees(b).size() && graph_.at(a).size() > graph_.at(b).size();
    const bool b_larger =
        graph_.callees(b).size() > graph_.callees(a).size() && graph_.at(b).size() > graph_.at(a).size();
    asks_clock = a_larger ? FunctionSet{a} : b_larger ? FunctionSet{b} : candidates;
  }
  if (graph_.callers_of(External::clock).empty() && subject_.family < Family::v53 && candidates.size() == 1 &&
      !without(graph_.callees(*candidates.begin()), {sweep_}).empty()) {
    // Nor has it up to 5.2, where arena_decay_impl makes the pass over all pages itself.
    name("arena_maybe_decay", candidates,
         {"called by arena_decay_impl",
          "besides it the only way from there to the sweep, and more than a wrapper"});
    return;
  }
  const FunctionSet others = without(candidates, asks_clock);
  if (candidates.size() > 2) {
    return;
  }
  name(spelled("pac_maybe_decay_purge", "arena_maybe_decay"), asks_clock,
       {"called by arena_decay_impl", "calls the sweep", "asks for the time"});
  const bool sole =
      others.size() == 1 && (!asks_clock.empty() || graph_.callees(*others.begin()) == FunctionSet{sweep_});
  if (sole && subject_.family >= Family::v53) {
    name("pac_decay_all", others,
         {"called by arena_decay_impl", "calls the sweep", "does not ask for the time"});
  }
}

void RuleSet::name_deferred_work() {
  const FunctionId decay = out.function("arena_decay");
  const FunctionId impl = out.function("arena_decay_impl");
  if (out.background == no_function || decay == no_function) {
    return;
  }
  FunctionId at = out.background;
  for (int step = 0; step < background_steps; ++step) {
    const FunctionSet& callees = graph_.callees(at);
    if (at != out.background &&
        (callees.contains(decay) || (impl != no_function && callees.contains(impl)))) {
      // Not background_work_sleep_once with it inlined, which sleeps and takes 3 arguments.
      const auto& edges = graph_.at(at).edges;
      const bool sleeps = std::any_of(edges.begin(), edges.end(), [](const Edge& edge) {
        return edge.external > External::harmless || edge.external == External::clock;
      });
      if (subject_.family >= Family::v53 && !sleeps && !graph_.at(at).takes(rdx)) {
        name("arena_do_deferred_work", at,
             {"the only way from background_thread_entry to the sweep", "calls arena_decay"});
      }
      return;
    }
    const FunctionSet next = without(toward_sweep(callees, 5), {decay, impl, sweep_, out.background, at});
    if (next.size() != 1) {
      return;
    }
    at = *next.begin();
  }
}

/// What `id` calls and whose result it compares with NULL.
FunctionSet RuleSet::tested_callees(FunctionId id) const {
  FunctionSet tested;
  for (const Edge& edge : graph_.at(id).edges) {
    if (edge.callee != no_function && edge.transfer.result_tested) {
      tested.insert(edge.callee);
    }
  }
  return tested;
}

void RuleSet::name_cache_functions() {
  if (sweep_ == no_function) {
    return;
  }
  name_evict();
  name_record();
  name_ecache_dalloc();
}

/// The sweep and arena.i.destroy both empty a cache extent by extent.
void RuleSet::name_evict() {
  const std::string_view role = spelled("ecache_evict", "extents_evict");
  FunctionSet inner = without(tested_callees(sweep_), lazy_);
  inner = without(inner, {dalloc_, sweep_});
  const FunctionId destroy = out.function("extent_destroy_wrapper");
  if (destroy != no_function) {
    FunctionSet shared;
    for (const FunctionId caller : graph_.callers(destroy)) {
      shared.merge(both(graph_.callees(caller), inner));
    }
    std::erase_if(shared, [&](FunctionId id) { return graph_.callees(id).empty(); });
    if (name(role, shared,
             {"the sweep tests its result for NULL", "also called beside extent_destroy_wrapper"})) {
      return;
    }
  }
  std::erase_if(inner, [&](FunctionId id) { return graph_.at(id).size() <= least_evict; });
  name(role, inner,
       {"the only function whose result the sweep tests for NULL", "too large to be an accessor"});
}

void RuleSet::name_record() {
  FunctionSet record;
  if (dalloc_ == no_function) {
    return;
  }
  for (const FunctionId id : graph_.callees(dalloc_)) {
    if (id != dalloc_ && graph_.callees(id).contains(dalloc_)) {
      record.insert(id);
    }
  }
  name("extent_record", record, {"called by extent_dalloc_wrapper", "calls it back for a large extent"});
}

void RuleSet::name_ecache_dalloc() {
  const FunctionId evict = out.function(spelled("ecache_evict", "extents_evict"));
  if (dalloc_ == no_function || evict == no_function) {
    return;
  }
  const FunctionSet tested = tested_callees(sweep_);
  FunctionSet candidates;
  FunctionSet shared_record;
  for (const FunctionId id : without(graph_.callees(sweep_), {evict, dalloc_, sweep_})) {
    FunctionSet shared = both(graph_.callees(id), graph_.callees(dalloc_));
    std::erase_if(shared, [&](FunctionId r) { return graph_.at(r).size() <= least_record; });
    const bool fits = !shared.empty() && !graph_.callees(dalloc_).contains(id) && !tested.contains(id) &&
                      !lazy_.contains(id);
    if (fits) {
      candidates.insert(id);
      shared_record.merge(shared);
    }
  }
  const std::string_view role = spelled("ecache_dalloc", "extents_dalloc");
  if (name(role, candidates, {"called by the sweep", "shares extent_record with extent_dalloc_wrapper"}) &&
      out.function("extent_record") == no_function) {
    name("extent_record", shared_record,
         {"called by " + std::string(role), "called by extent_dalloc_wrapper"});
  }
}

/// The functions at the end of a hook, which make the system call.
void RuleSet::name_pages() {
  if (sweep_ != no_function) {
    // Since 5.3.1, in builds that have it. The huge page allocator calls it too.
    name("pages_purge_process_madvise",
         without(without(both(keys(graph_.reached(sweep_, 2)), calls_.process_madvise), {sweep_}), out.hpa),
         {"calls process_madvise", "the sweep is at most 2 calls above it"});
  }
  struct Leaf {
    HookSlot slot;
    const FunctionSet* goal;
    std::string_view role, fact;
  };
  for (const Leaf& leaf :
       {Leaf{slot_purge_lazy, &calls_.free, "pages_purge_lazy", "calls madvise(MADV_FREE)"},
        Leaf{slot_purge_forced, &calls_.dontneed, "pages_purge_forced", "calls madvise(MADV_DONTNEED)"}}) {
    const FunctionId hook = out.hooks->slots[leaf.slot];
    FunctionSet ends = without(both(keys(graph_.reached(hook, 3)), *leaf.goal), out.boot);
    std::erase_if(ends, [&](FunctionId id) {
      return out.hooks->holds(id) || graph_.at(id).takes(rdx) || graph_.at(id).takes(rcx);
    });
    name(leaf.role, ends, {leaf.fact, "below that slot of the default extent hooks, and takes 2 arguments"});
  }
  FunctionSet ends = both(keys(graph_.reached(out.hooks->slots[slot_dalloc], 3)), calls_.munmap);
  std::erase_if(ends, [&](FunctionId id) { return out.hooks->holds(id); });
  if (ends.size() != 1) {
    return;
  }
  const FunctionId end = *ends.begin();
  if (both(graph_.callers(end), calls_.mmap).empty()) {
    // Alone, or with os_pages_unmap inlined: both pass on what their caller wants.
    out.wrappers.insert(end);
  } else {
    name("os_pages_unmap", end, {"calls munmap", "below the dalloc hook and called by what maps memory"});
  }
  FunctionSet above;
  for (const FunctionId id : graph_.callers(end)) {
    const bool thunk = graph_.at(id).size() <= 32 && graph_.at(id).edges.size() == 1;
    if (thunk && !out.hooks->holds(id) && graph_.reached(out.hooks->slots[slot_dalloc], 3).contains(id)) {
      above.insert(id);
    }
  }
  if (out.function("os_pages_unmap") != no_function) {
    name("pages_unmap", above, {"does nothing but call os_pages_unmap", "below the dalloc hook"});
  } else if (!out.hpa.contains(end)) {
    name("pages_unmap", end, {"calls munmap", "at the end of the dalloc hook"});
  }
}

void RuleSet::name_default_impl(std::string_view role, const FunctionSet& goal, uint8_t slot,
                                std::string_view wrapper, std::string_view fact) {
  const FunctionId user = out.function(wrapper);
  if (user == no_function || role.empty()) {
    return;
  }
  FunctionSet candidates = both(graph_.callees(user), graph_.reaching(goal, 1));
  std::erase_if(candidates, [&](FunctionId id) {
    return graph_.at(id).size() > small_function || out.hooks->holds(id) || out.hooks->users.contains(id) ||
           out.is_named(id);
  });
  if (candidates.size() == 1 &&
      graph_.reached(out.hooks->slots[slot], 1).contains(*candidates.begin()) == false) {
    // The hook itself may have it inlined; it must then reach the same system call.
    const auto below = graph_.reached(out.hooks->slots[slot], 2);
    const bool same =
        std::any_of(goal.begin(), goal.end(), [&](FunctionId id) { return below.contains(id); });
    if (!same) {
      return;
    }
  }
  name(role, candidates, {fact, "small, and the default branch of " + std::string(wrapper)});
}

void RuleSet::name_pac() {
  name_default_impl(spelled("ehooks_default_purge_lazy_impl", ""), calls_.free, slot_purge_lazy,
                    "extent_purge_lazy_wrapper", "leads to madvise(MADV_FREE)");
  name_default_impl(spelled("ehooks_default_purge_forced_impl", ""), calls_.dontneed, slot_purge_forced,
                    "extent_dalloc_wrapper", "leads to madvise(MADV_DONTNEED)");
  // The page allocator's methods up to 5.3: pac_init stores their addresses side by side.
  const FunctionId dalloc = out.function("ecache_dalloc");
  if (dalloc == no_function || sweep_ == no_function) {
    return;
  }
  const auto calls_soon = [&](FunctionId id, uint8_t slot) {
    for (const FunctionId callee : graph_.callees(id)) {
      const bool small = graph_.at(callee).size() <= small_function;
      if (out.hooks->calls(callee, slot) ||
          (small && std::any_of(graph_.callees(callee).begin(), graph_.callees(callee).end(),
                                [&](FunctionId c) { return out.hooks->calls(c, slot); }))) {
        return true;
      }
    }
    return false;
  };
  FunctionSet methods;
  for (const FunctionId id : without(graph_.callers(dalloc), {sweep_})) {
    const auto& callers = graph_.callers(id);
    if (graph_.address_taken(id) && callers.empty() && !calls_soon(id, slot_split)) {
      methods.insert(id);
    }
  }
  if (!name("pac_dalloc_impl", methods,
            {"calls ecache_dalloc", "called through a pointer only, splits no extent"})) {
    return;
  }
  // Beside it: of the methods that may grow the heap, expand merges what it gets with what there is.
  FunctionSet grows, grows_and_merges;
  for (const FunctionId id : without(stored_beside(*methods.begin()), methods)) {
    const auto below = graph_.reached(id, 3);
    const bool may_grow = std::any_of(below.begin(), below.end(), [&](const auto& reached) {
      return out.hooks->calls(reached.first, slot_alloc);
    });
    if (may_grow) {
      (calls_soon(id, slot_merge) ? grows_and_merges : grows).insert(id);
    }
  }
  if (grows_and_merges.size() == 1) {
    name("pac_alloc_impl", grows,
         {"its address is stored beside pac_dalloc_impl's", "reaches the alloc hook, and merges no extents"});
  }
}

/// The functions whose addresses one function stores together with that of `method`, which is called through
/// a pointer only: as instructions hold them, or by twos out of read-only data.
FunctionSet RuleSet::stored_beside(FunctionId method) const {
  const FunctionSet takers = graph_.users_of(graph_.at(method).start);
  if (takers.size() != 1) {
    return {};
  }
  FunctionSet stored;
  const auto add = [&](std::optional<uint64_t> address) {
    const FunctionId id = address ? graph_.find(*address) : no_function;
    if (id != no_function && graph_.callers(id).empty()) {
      stored.insert(id);
    }
  };
  for (const uint64_t reference : graph_.at(*takers.begin()).references) {
    add(reference);
    add(subject_.data.word(reference));
    add(subject_.data.word(reference + 8));
  }
  return stored;
}

}  // namespace jemtrace::locate::recover
