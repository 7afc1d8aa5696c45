#pragma once

#include "locate/recover/recover.hpp"
#include "locate/recover/rule_set.hpp"

namespace jemtrace::locate::recover {

inline constexpr int wrapper_depth = 4;  // calls from a purge to its system call, at most
inline constexpr uint32_t madv_dontneed = 4;

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

}  // namespace jemtrace::locate::recover
