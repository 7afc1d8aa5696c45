#include "locate/recover/site_rules.hpp"

#include <algorithm>

#include "locate/recover/rule_set.hpp"
#include "locate/roles.hpp"

namespace jemtrace::locate::recover {
namespace {

constexpr size_t max_sites = 20000;
constexpr uint32_t madv_dontneed = 4;
constexpr uint32_t madv_free = 8;
constexpr uint32_t sys_exit = 60;
constexpr int handler_depth = 7;
constexpr int wrapper_depth = 4;

struct Label {
  jt_purpose purpose = JT_PASS;
  jt_cause cause = JT_CAUSE_UNKNOWN;
};

/// Says of each function what a call from it means, as the role table does by name. Later rules never change
/// what an earlier one said.
class Labels {
 public:
  Labels(const Subject& subject, const Findings& findings)
      : subject_(subject), graph_(subject.graph), found_(findings), calls_(subject.graph) {}

  std::vector<RecoveredSite> sites() {
    label_named();
    if (found_.hooks) {
      label_hooks();
      label_zero_fills();
      label_mapping();
    }
    label_set(found_.hpa, {JT_HPA});
    label_set(found_.boot, {JT_BOOT_PROBE});
    label_thread_ends();
    label_decay();
    label_passing();
    label_callers_of_decay();
    label_causes();
    emit();
    return std::move(sites_);
  }

 private:
  void label(FunctionId id, Label what) {
    if (id != no_function) {
      labels_.emplace(id, what);
    }
  }
  void label_set(const FunctionSet& ids, Label what) {
    for (const FunctionId id : ids) {
      label(id, what);
    }
  }
  [[nodiscard]] FunctionSet unlabelled(FunctionSet ids) const {
    std::erase_if(ids, [&](FunctionId id) { return labels_.contains(id); });
    return ids;
  }
  [[nodiscard]] FunctionSet labelled_with(jt_purpose purpose) const {
    FunctionSet ids;
    for (const auto& [id, what] : labels_) {
      if (what.purpose == purpose) {
        ids.insert(id);
      }
    }
    return ids;
  }
  [[nodiscard]] FunctionSet below(const FunctionSet& from, int depth, const FunctionSet& barrier = {}) const {
    FunctionSet ids;
    for (const FunctionId id : from) {
      ids.merge(keys(graph_.reached(id, depth, barrier)));
    }
    return ids;
  }
  /// The functions on a path of at most `length` calls from one of `from` to one of `goals`.
  [[nodiscard]] FunctionSet between(const FunctionSet& from, const FunctionSet& goals, int length,
                                    const FunctionSet& barrier = {}) const {
    std::vector<FunctionSet> within;
    for (int steps = 0; steps <= length; ++steps) {
      within.push_back(graph_.reaching(goals, steps));
    }
    FunctionSet ids;
    for (const FunctionId id : from) {
      for (const auto& [reached, depth] : graph_.reached(id, length, barrier)) {
        if (within[static_cast<size_t>(length - depth)].contains(reached)) {
          ids.insert(reached);
        }
      }
    }
    return ids;
  }
  [[nodiscard]] FunctionSet giving_back() const {
    FunctionSet ids = calls_.free;
    ids.insert(calls_.dontneed.begin(), calls_.dontneed.end());
    ids.insert(calls_.munmap.begin(), calls_.munmap.end());
    ids.insert(calls_.process_madvise.begin(), calls_.process_madvise.end());
    return ids;
  }
  /// The users of the hooks that hand memory out, and who leads to them.
  [[nodiscard]] FunctionSet allocating() const {
    FunctionSet ids;
    for (const auto& [id, slots] : found_.hooks->users) {
      if (slots.contains(slot_split) || slots.contains(slot_alloc)) {
        ids.insert(id);
      }
    }
    return graph_.reaching(ids, 3);
  }
  [[nodiscard]] FunctionId handler(std::string_view name) const {
    const uint64_t vaddr = subject_.tree.handler(name);
    return vaddr == 0 ? no_function : graph_.find(vaddr);
  }

  void label_named();
  void label_hooks();
  void label_mapping();
  void label_zero_fills();
  [[nodiscard]] bool zero_fills(FunctionId id, const FunctionSet& allocating) const;
  [[nodiscard]] bool is_purge_branch(FunctionId id) const;
  void label_thread_ends();
  void label_decay();
  void label_passing();
  void label_causes();
  void label_callers_of_decay();
  void label_thread_exit(FunctionId caller, const Edge& edge);
  void label_immediate_decay(FunctionId decay);
  [[nodiscard]] FunctionSet by_control(int depth) const;
  void emit();
  void emit_function(FunctionId id, const Label& what);
  void emit_inherited();
  void emit_unlabelled();
  void add(const Edge& edge, Label what);

  const Subject& subject_;
  const CodeGraph& graph_;
  const Findings& found_;
  SystemCalls calls_;
  std::map<FunctionId, Label> labels_;
  FunctionSet ticking_;                // call arena_decay of their own accord
  std::map<uint64_t, Label> by_site_;  // by the call's address: goes before the function's label
  std::map<uint64_t, RecoveredSite> emitted_;
  std::vector<RecoveredSite> sites_;
};

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

}  // namespace

std::vector<RecoveredSite> find_sites(const Subject& subject, const Findings& findings) {
  return Labels(subject, findings).sites();
}

}  // namespace jemtrace::locate::recover
