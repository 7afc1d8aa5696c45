#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "render/merged_parts.hpp"
#include "render/text_parts.hpp"
#include "render/words.hpp"
#include "util/text.hpp"

namespace jemtrace::render {
namespace {

using ledger::Fleet;
using ledger::GroupKind;
using ledger::Histogram;
using ledger::PartialSum;

/// "12", "at least 12 (unknown in 3 of 10 processes)", "unknown".
std::string sum_words(const PartialSum& sum, std::string (*number)(uint64_t), const char* parts) {
  const auto known = sum.known();
  if (!known) {
    return "unknown";
  }
  if (sum.complete()) {
    return number(*known);
  }
  return fmt::format("at least {} (unknown in {} of {} {})", number(*known), human_count(sum.unknown),
                     human_count(sum.parts), parts);
}

Histogram all_purges(const Fleet& fleet, jt_payer payer) {
  Histogram sum;
  for (const ledger::TransitionTotals& totals : fleet.transitions) {
    sum.merge(totals.by_payer[payer]);
  }
  return sum;
}

std::string paid_words(const Fleet& fleet) {
  const Histogram app = all_purges(fleet, JT_PAYER_APP);
  const Histogram background = all_purges(fleet, JT_PAYER_BACKGROUND);
  const uint64_t all_ns = app.sum_ns() + background.sum_ns();
  if (app.count() + background.count() == 0) {
    return "nobody: nothing was purged";
  }
  return fmt::format("jemalloc's background threads {}, the programs' own threads {} ({} in {})",
                     glue(percent(background.sum_ns(), all_ns)), glue(percent(app.sum_ns(), all_ns)),
                     glue(human_ns(app.sum_ns())), glue(plural(app.count(), "call", "calls")));
}

std::string resident_words(const Fleet& fleet) {
  return fmt::format("{} at the end of the traces, LazyFree {}",
                     sum_words(fleet.rss_bytes, human_bytes, "processes"),
                     sum_words(fleet.lazyfree_bytes, human_bytes, "processes"));
}

std::string refault_words(const ledger::FleetCounters& counted) {
  const auto followed = counted.followed_pages.known();
  if (!followed) {
    return "not measured";
  }
  if (*followed == 0) {
    return "no purged page was followed";
  }
  std::string words =
      fmt::format("{} of {} followed pages were touched again within 10 s",
                  glue(percent(counted.touched_10s_pages.sum, *followed)), glue(human_count(*followed)));
  if (counted.waiting_10s_pages.sum > 0) {
    words +=
        fmt::format(", {} had not had the time", glue(percent(counted.waiting_10s_pages.sum, *followed)));
  }
  if (!counted.followed_pages.complete()) {
    words += fmt::format("; not measured in {} of {} processes", human_count(counted.followed_pages.unknown),
                         human_count(counted.followed_pages.parts));
  }
  return words;
}

PartialSum all_sweeps(const ledger::FleetCounters& counted, jt_state state) {
  PartialSum all;
  for (const PartialSum& one : counted.sweeps[state]) {
    all.sum += one.sum;
    all.parts = one.parts;
    all.unknown = one.unknown;
  }
  return all;
}

std::string sweep_words(const ledger::FleetCounters& counted) {
  return fmt::format("dirty {}; muzzy {}",
                     sum_words(all_sweeps(counted, JT_STATE_DIRTY), human_count, "processes"),
                     sum_words(all_sweeps(counted, JT_STATE_MUZZY), human_count, "processes"));
}

std::string lost_words(const Fleet& fleet) {
  const auto losses = fleet.losses();
  std::string words;
  uint64_t unknown = 0;
  for (unsigned kind = 0; kind < JT_LOSSES; ++kind) {
    if (losses[kind].sum > 0) {
      words += fmt::format("{}{} {}", words.empty() ? "" : ", ", human_count(losses[kind].sum),
                           loss_words(static_cast<jt_loss>(kind)));
    }
    unknown = std::max(unknown, losses[kind].unknown);
  }
  words = words.empty() ? "nothing" : words;
  return unknown == 0 ? words
                      : fmt::format("{}; in {} something is not counted by the kernel", words,
                                    plural(unknown, "run", "runs"));
}

std::string exact_words(const Fleet& fleet) {
  uint64_t exact = 0;
  for (const auto& [key, run] : fleet.runs()) {
    exact += run.exact;
  }
  return fmt::format("the totals of {} of {} equal jemalloc's own counters", human_count(exact),
                     plural(fleet.processes, "process", "processes"));
}

std::string transition_rows(const Fleet& fleet, const TextOptions& options) {
  std::vector<std::vector<std::string>> rows;
  for (unsigned t = 0; t < JT_TRANSITIONS; ++t) {
    const Histogram h = fleet.transitions[t].total();
    if (h.count() > 0) {
      rows.push_back({transition_label(static_cast<jt_transition>(t)), human_count(h.extents()),
                      human_bytes(h.bytes()), human_ns(h.quantile_ns(0.5)), human_ns(h.quantile_ns(0.9)),
                      human_ns(h.quantile_ns(0.99)), human_ns(h.max_ns()),
                      percent(fleet.transitions[t].by_payer[JT_PAYER_APP].sum_ns(), h.sum_ns())});
    }
  }
  if (rows.empty()) {
    return "No purge was seen.\n";
  }
  return table({{"TRANSITION", 0, true, 0, "", 12},
                {"EXTENTS"},
                {"BYTES"},
                {"P50", 0, false, 2},
                {"P90", 0, false, 3},
                {"P99"},
                {"MAX", 0, false, 1},
                {"APP PAYS"}},
               rows, options);
}

std::string group_rows(const Fleet& fleet, GroupKind kind, const char* header, const TextOptions& options) {
  std::vector<std::vector<std::string>> rows;
  for (const auto& [key, group] : top_groups(fleet, kind, groups_shown)) {
    const Histogram& h = group->purges;
    const bool any = h.count() > 0;
    rows.push_back({group_label(kind, *key), human_count(group->processes), human_count(h.count()),
                    human_bytes(h.bytes()), any ? human_ns(h.quantile_ns(0.99)) : "",
                    any ? human_ns(h.max_ns()) : "", human_ns(group->app_ns)});
  }
  std::string out = table({{header, 0, true, 0, "", 16},
                           {"PROCESSES", 0, false, 2, "PROCS"},
                           {"CALLS"},
                           {"BYTES"},
                           {"P99"},
                           {"MAX", 0, false, 1},
                           {"APP PAID"}},
                          rows, options);
  const size_t all = fleet.groups(kind).size();
  if (all > rows.size()) {
    out += fmt::format("and {} more (-f json lists them)\n", human_count(all - rows.size()));
  }
  if (const uint64_t folded = fleet.folded[static_cast<size_t>(kind)]; folded > 0) {
    out += fmt::format("(other): {} not told apart\n", human_count(folded));
  }
  return out;
}

}  // namespace

std::vector<FleetEntry> top_groups(const Fleet& fleet, GroupKind kind, size_t at_most) {
  std::vector<FleetEntry> all;
  for (const auto& [key, group] : fleet.groups(kind)) {
    all.emplace_back(&key, &group);
  }
  const size_t shown = std::min(at_most, all.size());
  std::partial_sort(all.begin(), all.begin() + static_cast<std::ptrdiff_t>(shown), all.end(),
                    [](const FleetEntry& a, const FleetEntry& b) {
                      const auto rank = [](const FleetEntry& entry) {
                        return std::pair(entry.second->app_ns, entry.second->purges.sum_ns());
                      };
                      // With equal ranks the names decide, so that the same input prints the same.
                      return rank(a) != rank(b) ? rank(a) > rank(b) : *a.first < *b.first;
                    });
  all.resize(shown);
  return all;
}

std::string group_label(GroupKind kind, const std::string& key) {
  if (key.empty()) {
    return "unknown";
  }
  return kind == GroupKind::version ? "jemalloc " + key : key;
}

std::string transition_label(jt_transition transition) {
  std::string label = ledger::name(transition);
  const size_t at = label.find('_');
  return label.substr(0, at) + " -> " + label.substr(at + 1);
}

std::string fleet_words(const Fleet& fleet) {
  return fmt::format("{}, {}, {}, {} of their time", plural(fleet.hosts(), "host", "hosts"),
                     plural(fleet.runs().size(), "run", "runs"),
                     plural(fleet.processes, "process", "processes"), seconds(fleet.window_ns));
}

std::vector<std::pair<std::string, std::string>> fleet_facts(const Fleet& fleet) {
  return {{"paid by", paid_words(fleet)},
          {"resident", resident_words(fleet)},
          {"came back", refault_words(fleet.counters)},
          {"sweeps", sweep_words(fleet.counters)},
          {"exact", exact_words(fleet)},
          {"lost", lost_words(fleet)},
          {"cost", sum_words(fleet.cpu_ns(), human_ns, "runs") + " of jemtrace's own CPU time"}};
}

std::string merged_text(const Fleet& fleet, const TextOptions& options) {
  std::string out =
      wrap("", fleet_words(fleet), options.width, 0) + "\n" + transition_rows(fleet, options) + "\n";
  for (const auto& [label, text] : fleet_facts(fleet)) {
    out += wrap(pad_right(label, label_width), text, options.width, label_width);
  }
  out += "\n" + group_rows(fleet, GroupKind::host, "HOST", options);
  out += "\n" + group_rows(fleet, GroupKind::cgroup, "CGROUP", options);
  out += "\n" + group_rows(fleet, GroupKind::version, "VERSION", options);
  return out;
}

}  // namespace jemtrace::render
