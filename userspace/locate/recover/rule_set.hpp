#pragma once

#include <initializer_list>

#include "locate/recover/rules.hpp"

namespace jemtrace::locate::recover {

inline constexpr int handler_depth = 7;  // calls from a mallctl handler to the sweep, at most

/// The rules, in the order in which one builds on another. Names differ between 5.2 and 5.3, shapes do not.
class RuleSet {
 public:
  explicit RuleSet(const Subject& subject);

  void name_handlers();
  void find_boot();
  bool find_hooks();
  void name_slots();
  void name_wrappers();
  void find_sweep();
  void name_callers_of_sweep();
  void name_cache_functions();
  void name_pages();
  void name_pac();

  Findings out;

 private:
  using Evidence = std::initializer_list<std::string_view>;

  /// Gives the one candidate its name; nothing when there is none or a choice.
  bool name(std::string_view role, const FunctionSet& candidates, Evidence evidence);
  bool name(std::string_view role, FunctionId candidate, Evidence evidence);
  /// The spelling of the family: `now` since 5.3, `before` up to 5.2.
  [[nodiscard]] std::string_view spelled(std::string_view now, std::string_view before) const;
  [[nodiscard]] FunctionId handler(std::string_view ctl) const;
  [[nodiscard]] bool is_plain(FunctionId id) const;
  [[nodiscard]] FunctionSet only_calling(uint8_t slot) const;
  FunctionSet above_helpers(const FunctionSet& functions);
  FunctionSet with_thunks(const FunctionSet& functions, FunctionSet& preferred) const;
  [[nodiscard]] bool is_inner(FunctionId id, const FunctionSet& with_thunk) const;
  void find_dalloc_like();
  void find_background();
  void name_decay_chain();
  void name_below_impl(FunctionId impl);
  [[nodiscard]] bool asks_through_pointer(FunctionId id) const;
  void name_deferred_work();
  void name_evict();
  void name_record();
  void name_ecache_dalloc();
  [[nodiscard]] FunctionSet tested_callees(FunctionId id) const;
  [[nodiscard]] FunctionSet toward_sweep(const FunctionSet& functions, int depth) const;
  [[nodiscard]] FunctionSet stored_beside(FunctionId method) const;
  void name_default_impl(std::string_view role, const FunctionSet& goal, uint8_t slot,
                         std::string_view wrapper, std::string_view fact);

  const Subject& subject_;
  const CodeGraph& graph_;
  SystemCalls calls_;
  FunctionId decay_ = no_function, purge_ = no_function, sweep_ = no_function, dalloc_ = no_function;
  std::map<FunctionId, int> below_decay_, below_background_;
  FunctionSet lazy_;  // extent_purge_lazy_wrapper and what it is a thunk of
};

/// The elements of `a` that are in `b`.
FunctionSet both(const FunctionSet& a, const FunctionSet& b);
/// The elements of `a` that are not in `b`.
FunctionSet without(const FunctionSet& a, const FunctionSet& b);
FunctionSet keys(const std::map<FunctionId, int>& map);

}  // namespace jemtrace::locate::recover
