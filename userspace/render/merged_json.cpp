#include "render/json_parts.hpp"

/// `merged` and the lines that follow it: record/summaries.cpp reads them back.
namespace jemtrace::render {
namespace {

using ledger::GroupKind;
using ledger::PartialSum;

Json partial(const PartialSum& sum) {
  return {{"sum", maybe(sum.known())}, {"parts", sum.parts}, {"unknown", sum.unknown}};
}

/// Escaped by the host it is from, and never twice: reading and writing it again changes nothing.
Json name_or_null(const std::string& name) {
  return name.empty() ? Json(nullptr) : Json(name);
}

constexpr jt_state decaying[] = {JT_STATE_DIRTY, JT_STATE_MUZZY, JT_STATE_UNKNOWN};

Json counters(const ledger::FleetCounters& all) {
  Json object = Json::object();
  for (const jt_state state : decaying) {
    const std::string prefix = ledger::name(state);
    object[prefix + "_npurge"] = partial(all.decay[state].npurge);
    object[prefix + "_nmadvise"] = partial(all.decay[state].nmadvise);
    object[prefix + "_purged"] = partial(all.decay[state].purged_pages);
  }
  return object;
}

Json sweeps(const ledger::FleetCounters& all) {
  Json object = Json::object();
  for (const jt_state state : decaying) {
    for (unsigned cause = 0; cause < JT_CAUSES; ++cause) {
      object[ledger::name(state)][ledger::name(static_cast<jt_cause>(cause))] =
          partial(all.sweeps[state][cause]);
    }
  }
  return object;
}

Json merged_line(const ledger::Fleet& fleet) {
  Json groups = Json::object();
  Json folded = Json::object();
  for (size_t kind = 0; kind < ledger::group_kinds; ++kind) {
    const auto which = static_cast<GroupKind>(kind);
    groups[ledger::name(which)] = fleet.groups(which).size();
    folded[ledger::name(which)] = fleet.folded[kind];
  }
  Json losses = Json::object();
  const auto lost = fleet.losses();
  for (unsigned kind = 0; kind < JT_LOSSES; ++kind) {
    losses[ledger::name(static_cast<jt_loss>(kind))] = partial(lost[kind]);
  }
  const ledger::FleetCounters& counted = fleet.counters;
  return {{"type", "merged"},
          {"schema", schema_version},
          {"jemtrace", JEMTRACE_VERSION},
          {"runs", fleet.runs().size()},
          {"hosts", fleet.hosts()},
          {"groups", groups},
          {"folded_groups", folded},
          {"processes", fleet.processes},
          {"window_ns", fleet.window_ns},
          {"transitions", transitions_total(fleet.transitions)},
          {"sweeps", sweeps(counted)},
          {"counters", counters(counted)},
          {"oversize_extents", partial(counted.oversize_extents)},
          {"refaults",
           {{"purged_pages", partial(counted.purged_pages)},
            {"followed_pages", partial(counted.followed_pages)},
            {"touched_10s_pages", partial(counted.touched_10s_pages)},
            {"waiting_10s_pages", partial(counted.waiting_10s_pages)}}},
          {"rss_bytes", partial(fleet.rss_bytes)},
          {"lazyfree_bytes", partial(fleet.lazyfree_bytes)},
          {"losses", losses},
          {"cpu_ns", partial(fleet.cpu_ns())}};
}

Json run_line(const ledger::FleetRun& run) {
  Json losses = Json::object();
  for (unsigned kind = 0; kind < JT_LOSSES; ++kind) {
    losses[ledger::name(static_cast<jt_loss>(kind))] = maybe(run.losses[kind]);
  }
  return {{"type", "merged_run"},
          {"host", name_or_null(run.host)},
          {"start_unix_ns", run.start_unix_ns},
          {"end_unix_ns", run.end_unix_ns},
          {"jemtrace", run.jemtrace_version},
          {"kernel", name_or_null(run.kernel)},
          {"processes", run.processes},
          {"exact", run.exact},
          {"losses", losses},
          {"cpu_ns", maybe(run.cpu_ns)}};
}

Json group_line(GroupKind kind, const std::string& key, const ledger::FleetGroup& group) {
  Json line = {{"type", "merged_group"},
               {"by", ledger::name(kind)},
               {"key", name_or_null(key)},
               {"processes", group.processes}};
  line.update(amounts(group.purges));
  line["app_calls_total"] = group.app_calls;
  line["app_ns"] = group.app_ns;
  line["rss_bytes"] = partial(group.rss_bytes);
  line["lazyfree_bytes"] = partial(group.lazyfree_bytes);
  return line;
}

}  // namespace

void merged_lines(const ledger::Fleet& fleet, const std::function<void(const Json&)>& put) {
  put(merged_line(fleet));
  for (const auto& [key, run] : fleet.runs()) {
    put(run_line(run));
  }
  for (size_t kind = 0; kind < ledger::group_kinds; ++kind) {
    const auto which = static_cast<GroupKind>(kind);
    for (const auto& [key, group] : fleet.groups(which)) {
      put(group_line(which, key, group));
    }
  }
}

}  // namespace jemtrace::render
