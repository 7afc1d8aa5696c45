#include "locate/recover/rule_set.hpp"

#include <algorithm>

namespace jemtrace::locate::recover {
namespace {

constexpr uint64_t thunk_size = 36;
constexpr uint64_t thin_wrapper = 128;
constexpr uint64_t accessor = 32;

struct HandlerRole {
  std::string_view ctl, role;
};
constexpr HandlerRole handler_roles[] = {
    {"arena.i.decay", "arena_i_decay_ctl"},
    {"arena.i.purge", "arena_i_purge_ctl"},
    {"arena.i.destroy", "arena_i_destroy_ctl"},
    {"arena.i.dirty_decay_ms", "arena_i_dirty_decay_ms_ctl"},
    {"arena.i.muzzy_decay_ms", "arena_i_muzzy_decay_ms_ctl"},
    {"thread.idle", "thread_idle_ctl"},
};

struct SlotRole {
  HookSlot slot;
  std::string_view now, before;
};
constexpr SlotRole slot_roles[] = {
    {slot_alloc, "ehooks_default_alloc", "extent_alloc_default"},
    {slot_dalloc, "ehooks_default_dalloc", "extent_dalloc_default"},
    {slot_destroy, "ehooks_default_destroy", "extent_destroy_default"},
    {slot_commit, "ehooks_default_commit", "extent_commit_default"},
    {slot_decommit, "ehooks_default_decommit", "extent_decommit_default"},
    {slot_purge_lazy, "ehooks_default_purge_lazy", "extent_purge_lazy_default"},
    {slot_purge_forced, "ehooks_default_purge_forced", "extent_purge_forced_default"},
};

bool harmless(External external) {
  return external == External::none || external == External::harmless || external == External::madvise;
}

}  // namespace

FunctionSet both(const FunctionSet& a, const FunctionSet& b) {
  FunctionSet out;
  std::set_intersection(a.begin(), a.end(), b.begin(), b.end(), std::inserter(out, out.end()));
  return out;
}

FunctionSet without(const FunctionSet& a, const FunctionSet& b) {
  FunctionSet out;
  std::set_difference(a.begin(), a.end(), b.begin(), b.end(), std::inserter(out, out.end()));
  return out;
}

FunctionSet keys(const std::map<FunctionId, int>& map) {
  FunctionSet out;
  for (const auto& [id, depth] : map) {
    out.insert(out.end(), id);
  }
  return out;
}

RuleSet::RuleSet(const Subject& subject) : subject_(subject), graph_(subject.graph), calls_(subject.graph) {}

std::string_view RuleSet::spelled(std::string_view now, std::string_view before) const {
  return subject_.family >= Family::v53 ? now : before;
}

bool RuleSet::name(std::string_view role, FunctionId candidate, Evidence evidence) {
  return name(role, candidate == no_function ? FunctionSet{} : FunctionSet{candidate}, evidence);
}

bool RuleSet::name(std::string_view role, const FunctionSet& candidates, Evidence evidence) {
  if (candidates.size() != 1 || role.empty() || evidence.size() < 2) {
    return false;
  }
  const FunctionId id = *candidates.begin();
  if (out.is_named(id) || out.function(role) != no_function || !graph_.at(id).whole) {
    return false;
  }
  out.named.push_back({std::string(role), id, {evidence.begin(), evidence.end()}});
  return true;
}

FunctionId RuleSet::handler(std::string_view ctl) const {
  const uint64_t vaddr = subject_.tree.handler(ctl);
  return vaddr == 0 ? no_function : graph_.find(vaddr);
}

void RuleSet::name_handlers() {
  for (const HandlerRole& h : handler_roles) {
    // Identical handlers may have been folded into one: then it is neither.
    const uint64_t vaddr = subject_.tree.handler(h.ctl);
    const auto& nodes = subject_.tree.nodes();
    const auto n = std::count_if(nodes.begin(), nodes.end(),
                                 [&](const auto& node) { return node.second.handler == vaddr; });
    const std::string table = "handler of " + std::string(h.ctl) + " in mallctl's tables";
    if (vaddr != 0 && n == 1) {
      name(h.role, graph_.find(vaddr), {table, "their root begins with version and epoch"});
    }
  }
  decay_ = handler("arena.i.decay");
  purge_ = handler("arena.i.purge");
  below_decay_ = graph_.reached(decay_, handler_depth);
  out.below_decay = both(keys(below_decay_), keys(graph_.reached(purge_, handler_depth)));
  find_background();
}

void RuleSet::find_background() {
  FunctionSet users;
  for (const uint64_t at : subject_.data.find_text("jemalloc_bg_thd")) {
    users.merge(graph_.users_of(at));
  }
  if (users.size() == 1) {
    out.background = *users.begin();
    below_background_ = graph_.reached(out.background, handler_depth);
  }
}

void RuleSet::find_boot() {
  const FunctionSet asks = graph_.reaching(graph_.callers_of(External::madvise), 2);
  FunctionSet users;
  for (const std::string_view path :
       {"/proc/sys/vm/overcommit_memory", "/sys/kernel/mm/transparent_hugepage/enabled"}) {
    for (const uint64_t at : subject_.data.find_text(path)) {
      users.merge(graph_.users_of(at));
    }
  }
  // Not named: link-time optimisation makes pages_boot a part of its callers.
  out.boot = both(users, asks);
}

bool RuleSet::find_hooks() {
  out.hooks = recover::find_hooks(subject_.data, graph_, calls_);
  out.hpa = find_hpa_hooks(subject_.data, graph_, calls_);
  return out.hooks.has_value();
}

void RuleSet::name_slots() {
  for (const SlotRole& s : slot_roles) {
    const FunctionId id = out.hooks->slots[s.slot];
    const auto n = std::count(out.hooks->slots.begin(), out.hooks->slots.end(), id);
    if (id != no_function && n == 1) {
      name(spelled(s.now, s.before), id,
           {"slot " + std::to_string(s.slot) + " of the default extent hooks",
            std::to_string(out.hooks->score) + " of 5 other slots reach their system calls"});
    }
  }
}

/// Nothing but the hook, the default's system call and what these need.
bool RuleSet::is_plain(FunctionId id) const {
  const auto& edges = graph_.at(id).edges;
  return std::all_of(edges.begin(), edges.end(), [](const Edge& e) { return harmless(e.external); }) &&
         both(graph_.callees(id), out.dalloc_like).empty();
}

FunctionSet RuleSet::only_calling(uint8_t slot) const {
  FunctionSet found;
  for (const auto& [id, slots] : out.hooks->users) {
    if (slots == std::set<uint8_t>{slot} && !out.hooks->holds(id) && is_plain(id)) {
      found.insert(id);
    }
  }
  return found;
}

/// clang keeps an exported wrapper as a thunk around a static function. The thunk is the name's bearer,
/// unless nobody calls it: then LTO left it behind.
FunctionSet RuleSet::with_thunks(const FunctionSet& functions, FunctionSet& preferred) const {
  FunctionSet all = functions;
  for (const FunctionId id : functions) {
    FunctionId bearer = id;
    for (const FunctionId caller : graph_.callers(id)) {
      const CodeFunction& thunk = graph_.at(caller);
      const bool thin = thunk.size() <= thunk_size && thunk.edges.size() == 1 && !out.hooks->holds(caller);
      if (thin) {
        all.insert(caller);
        const bool used = !graph_.callers(caller).empty() || graph_.address_taken(caller);
        bearer = used ? caller : bearer;
      }
    }
    preferred.insert(bearer);
  }
  return all;
}

/// -Os does not inline ehooks_purge_lazy() and its like, which take one argument more than their callers, the
/// wrappers. Up to 5.2 there are none.
FunctionSet RuleSet::above_helpers(const FunctionSet& functions) {
  FunctionSet found;
  for (const FunctionId id : functions) {
    if (subject_.family < Family::v53 || !graph_.at(id).takes(r9)) {
      found.insert(id);
      continue;
    }
    out.wrappers.insert(id);
    for (const FunctionId caller : graph_.callers(id)) {
      const FunctionSet others = without(graph_.callees(caller), {id});
      const bool thin = graph_.at(caller).size() <= thin_wrapper &&
                        std::all_of(others.begin(), others.end(),
                                    [&](FunctionId other) { return graph_.at(other).size() <= accessor; });
      if (thin && !out.hooks->holds(caller) && is_plain(caller)) {
        found.insert(caller);
      }
    }
  }
  return found;
}

/// Users of the dalloc hook that can purge as well: extent_dalloc_wrapper and base_unmap. Under -Os the purge
/// hooks are called by helpers of their own.
void RuleSet::find_dalloc_like() {
  for (const auto& [id, slots] : out.hooks->users) {
    std::set<uint8_t> called = slots;
    for (const FunctionId callee : graph_.callees(id)) {
      const auto helper = out.hooks->users.find(callee);
      if (helper != out.hooks->users.end() && helper->second.size() == 1) {
        called.insert(helper->second.begin(), helper->second.end());
      }
    }
    const bool purges = called.contains(slot_purge_lazy) || called.contains(slot_purge_forced);
    if (slots.contains(slot_dalloc) && purges && !out.hooks->holds(id)) {
      out.dalloc_like.insert(id);
    }
  }
}

/// extent_purge_lazy_impl, say: a thunk beside it is called by nobody, or the path of an allocation that
/// fails calls it.
bool RuleSet::is_inner(FunctionId id, const FunctionSet& with_thunk) const {
  if (with_thunk.size() == 2 && graph_.at(id).size() > thunk_size) {
    return true;
  }
  for (const auto& [user, slots] : out.hooks->users) {
    // 5.0 and 5.1 have no inner function.
    const bool allocates =
        subject_.family >= Family::v52 && (slots.contains(slot_split) || slots.contains(slot_alloc));
    const auto below = allocates ? graph_.reached(user, 1) : std::map<FunctionId, int>{};
    const bool calls = std::any_of(below.begin(), below.end(), [&](const auto& reached) {
      return reached.first != id && graph_.callees(reached.first).contains(id);
    });
    if (calls) {
      return true;
    }
  }
  return false;
}

void RuleSet::name_wrappers() {
  find_dalloc_like();
  struct Wrapper {
    HookSlot slot;
    std::string_view role, impl, fact;
  };
  for (const Wrapper& w :
       {Wrapper{slot_purge_lazy, "extent_purge_lazy_wrapper", "extent_purge_lazy_impl",
                "the only hook it calls is purge_lazy"},
        Wrapper{slot_purge_forced, "extent_purge_forced_wrapper", "extent_purge_forced_impl",
                "the only hook it calls is purge_forced"},
        Wrapper{slot_destroy, "extent_destroy_wrapper", "", "the only hook it calls is destroy"}}) {
    FunctionSet preferred;
    const FunctionSet all = with_thunks(above_helpers(only_calling(w.slot)), preferred);
    if (w.slot == slot_purge_lazy) {
      lazy_ = all;
    }
    if (w.slot != slot_destroy) {
      out.wrappers.insert(all.begin(), all.end());
    }
    // LTO leaves the wrappers behind and calls what is in them, as allocations do.
    const bool inner = w.slot != slot_destroy && preferred.size() == 1 && is_inner(*preferred.begin(), all);
    name(inner ? w.impl : w.role, preferred, {w.fact, "it or what it wraps mentions the default hooks"});
  }
}

/// The caller of the lazy wrapper, or of that hook, that both ctl handlers lead to.
void RuleSet::find_sweep() {
  FunctionSet candidates;
  for (const FunctionId wrapper : lazy_) {
    candidates.insert(graph_.callers(wrapper).begin(), graph_.callers(wrapper).end());
  }
  if (lazy_.empty()) {
    for (const auto& [id, slots] : out.hooks->users) {
      if (slots.contains(slot_purge_lazy) && !out.dalloc_like.contains(id)) {
        candidates.insert(id);
      }
    }
  }
  candidates = without(both(candidates, out.below_decay), lazy_);
  std::erase_if(candidates, [&](FunctionId id) {
    return without(both(graph_.callees(id), out.dalloc_like), {id}).empty() || out.hooks->holds(id);
  });
  if (candidates.size() > 1) {
    // Copies of extent_dalloc_wrapper were inlined: the sweep is the one the handlers come to first.
    const auto depth = [&](FunctionId id) { return below_decay_.at(id); };
    int nearest = handler_depth;
    for (const FunctionId id : candidates) {
      nearest = std::min(nearest, depth(id));
    }
    std::erase_if(candidates, [&](FunctionId id) { return depth(id) != nearest; });
  }
  out.sweep_like = candidates;
  const std::string_view how = lazy_.empty()
                                   ? "calls the purge_lazy hook and a function that returns extents"
                                   : "calls extent_purge_lazy_wrapper and a function that returns extents";
  if (!name(spelled("pac_decay_to_limit", "arena_decay_to_limit"), candidates,
            {"below both arena.i.decay and arena.i.purge", how})) {
    return;
  }
  sweep_ = *candidates.begin();
  const FunctionSet dalloc = without(both(graph_.callees(sweep_), out.dalloc_like), {sweep_});
  if (name("extent_dalloc_wrapper", dalloc,
           {"calls the dalloc hook and a purge hook", "called by the sweep"})) {
    dalloc_ = *dalloc.begin();
  }
  FunctionSet rest = without(out.dalloc_like, out.below_decay);
  rest = without(rest, {sweep_, dalloc_});
  name("base_unmap", rest, {"calls the dalloc hook and a purge hook", "no decay leads to it"});
}

}  // namespace jemtrace::locate::recover
