#include "locate/recover/rules.hpp"

#include <algorithm>

#include "locate/recover/rule_set.hpp"

namespace jemtrace::locate::recover {

FunctionId Findings::function(std::string_view role) const {
  const auto found =
      std::find_if(named.begin(), named.end(), [&](const Named& name) { return name.role == role; });
  return found == named.end() ? no_function : found->id;
}

bool Findings::is_named(FunctionId id) const {
  return std::any_of(named.begin(), named.end(), [&](const Named& name) { return name.id == id; });
}

Findings apply_rules(const Subject& subject) {
  RuleSet rules(subject);
  rules.name_handlers();
  rules.find_boot();
  if (rules.find_hooks()) {
    rules.name_slots();
    rules.name_wrappers();
    rules.find_sweep();
    rules.name_callers_of_sweep();
    rules.name_cache_functions();
    rules.name_pages();
    rules.name_pac();
  }
  return std::move(rules.out);
}

}  // namespace jemtrace::locate::recover
