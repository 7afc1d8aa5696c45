#include "locate/recover/recover.hpp"

#include <algorithm>

#include "locate/recover/site_rules.hpp"
#include "locate/roles.hpp"

namespace jemtrace::locate::recover {
namespace {

/// Where ctl.o is: the middle of the handlers, and the handlers around it.
struct Span {
  uint64_t low = 0, high = 0;
};

std::optional<Span> handler_span(const CtlTree& tree) {
  constexpr uint64_t most = uint64_t{2} << 20;
  std::vector<uint64_t> handlers;
  for (const auto& [name, node] : tree.nodes()) {
    if (node.handler != 0) {
      handlers.push_back(node.handler);
    }
  }
  if (handlers.size() < 8) {
    return std::nullopt;
  }
  std::sort(handlers.begin(), handlers.end());
  const uint64_t middle = handlers[handlers.size() / 2];
  const auto is_far = [&](uint64_t v) { return (v > middle ? v - middle : middle - v) > most; };
  std::erase_if(handlers, is_far);
  return Span{handlers.front(), handlers.back()};
}

}  // namespace

const RecoveredFunction* Recovered::function(std::string_view role) const {
  const auto found = std::find_if(functions.begin(), functions.end(),
                                  [&](const RecoveredFunction& f) { return f.role == role; });
  return found == functions.end() ? nullptr : &*found;
}

Survey Survey::make(const ElfFile& file, const CallFrames& frames) {
  Survey survey;
  survey.data = DataView::read(file);
  survey.tree = CtlTree::find(survey.data, file);
  if (const auto span = handler_span(survey.tree)) {
    survey.graph = CodeGraph::build(file, frames, survey.data, span->low, span->high);
  }
  return survey;
}

Recovered recover(const Survey& survey, Family family) {
  Recovered out;
  if (!survey.graph) {
    return out;
  }
  const CodeGraph& graph = *survey.graph;
  const Subject subject{survey.data, survey.tree, graph, family};
  const Findings findings = apply_rules(subject);
  for (const Named& named : findings.named) {
    const CodeFunction& function = graph.at(named.id);
    out.functions.push_back({named.role, function.start, function.pieces, named.evidence});
  }
  std::sort(out.functions.begin(), out.functions.end(),
            [](const RecoveredFunction& a, const RecoveredFunction& b) { return a.vaddr < b.vaddr; });
  out.sweep = out.function(sweep_role(family)) != nullptr;
  out.sites = find_sites(subject, findings);
  return out;
}

}  // namespace jemtrace::locate::recover
