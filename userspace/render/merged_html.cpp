#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "render/merged_parts.hpp"
#include "render/output.hpp"
#include "render/words.hpp"
#include "util/text.hpp"

namespace jemtrace::render {
namespace {

using ledger::Fleet;
using ledger::GroupKind;
using ledger::Histogram;

/// For text and for attribute values in double quotes.
std::string html(std::string_view text) {
  std::string out;
  for (const char c : text) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += "&quot;";
        break;
      case '\'':
        out += "&#39;";
        break;
      case '\x1f':  // glue(): no line is broken by hand here
        out += ' ';
        break;
      default:
        out += c;
    }
  }
  return out;
}

// No script, and a policy that allows none: whatever a host calls itself stays text.
constexpr std::string_view head = R"(<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>jemtrace: the fleet</title>
<style>
:root { --ink: #1d232b; --soft: #5c6672; --line: #d9dee4; --page: #ffffff; --app: #c2410c; --background: #2563a8; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e4e8ec; --soft: #9aa5b1; --line: #333b45; --page: #14181d; --app: #f08a4b; --background: #6aa9ea; }
}
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--page); max-width: 60rem;
  margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; margin-bottom: .2rem; } h2 { font-size: 1.1rem; margin: 2.2rem 0 .5rem; }
p { margin: .2rem 0; } .soft { color: var(--soft); }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th { font-weight: 600; color: var(--soft); font-size: .8rem; }
th, td { text-align: right; padding: .25rem .5rem; border-bottom: 1px solid var(--line); white-space: nowrap; }
th:first-child, td:first-child { text-align: left; padding-left: 0; white-space: normal; overflow-wrap: anywhere; }
dl { display: grid; grid-template-columns: 7rem 1fr; gap: .2rem 1rem; } dt { color: var(--soft); } dd { margin: 0; }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(26rem, 1fr)); gap: 1rem 2rem; }
figure { margin: 0; } figcaption { font-weight: 600; } svg { width: 100%; height: auto; display: block; }
svg text { font-size: 11px; fill: var(--soft); } .app { fill: var(--app); } .background { fill: var(--background); }
.axis { stroke: var(--line); } .mark { stroke: var(--soft); stroke-dasharray: 3 3; }
.bar { display: block; height: .5rem; background: var(--app); min-width: 1px; } td.bars { width: 9rem; }
.key { display: inline-block; width: .8em; height: .8em; margin: 0 .3em 0 1em; }
</style>
</head>
<body>
)";

constexpr int chart_width = 440, chart_height = 170, left = 8, right = 8, top = 18, bottom = 24;

/// A latency at its place on the axis, in buckets from `first`; the edge of a bucket for its bound.
double place(uint64_t ns, unsigned first) {
  const unsigned bucket = Histogram::bucket_of(ns);
  return static_cast<double>(bucket) + 1.0 - static_cast<double>(first);
}

/// Calls by latency: one bar per bucket, the program's share below.
std::string chart(const std::string& title, const ledger::TransitionTotals& totals) {
  const Histogram all = totals.total();
  const Histogram& app = totals.by_payer[JT_PAYER_APP];
  unsigned first = JT_HIST_BUCKETS;
  unsigned last = 0;
  uint64_t highest = 0;
  for (unsigned i = 0; i < JT_HIST_BUCKETS; ++i) {
    const uint64_t n = all.raw().buckets[i];
    highest = std::max(highest, n);
    first = n > 0 ? std::min(first, i) : first;
    last = n > 0 ? i : last;
  }
  if (highest == 0) {
    return {};
  }
  const double step = static_cast<double>(chart_width - left - right) / (last - first + 1);
  const double room = chart_height - top - bottom;
  const double floor = chart_height - bottom;
  const auto height = [&](uint64_t n) {
    return room * static_cast<double>(n) / static_cast<double>(highest);
  };
  std::string out = fmt::format(
      "<figure><figcaption>{}</figcaption>\n<svg viewBox=\"0 0 {} {}\" role=\"img\" aria-label=\"{}: calls "
      "by "
      "latency\">\n",
      html(title), chart_width, chart_height, html(title));
  for (unsigned i = first; i <= last; ++i) {
    const uint64_t n = all.raw().buckets[i];
    if (n == 0) {
      continue;
    }
    const uint64_t paid_by_app = std::min<uint64_t>(n, app.raw().buckets[i]);
    const double x = left + step * (i - first);
    const std::string what =
        fmt::format("up to {}: {} calls, {} of them on the program's threads",
                    i == JT_HIST_FINITE ? "any time" : human_ns(Histogram::upper_bound_ns(i)), human_count(n),
                    human_count(paid_by_app));
    const double lower = height(paid_by_app);
    const double upper = height(n - paid_by_app);
    out += fmt::format(
        "<g><title>{}</title><rect class=\"app\" x=\"{:.2f}\" y=\"{:.2f}\" width=\"{:.2f}\" "
        "height=\"{:.2f}\"/>"
        "<rect class=\"background\" x=\"{:.2f}\" y=\"{:.2f}\" width=\"{:.2f}\" height=\"{:.2f}\"/></g>\n",
        html(what), x, floor - lower, step * 0.92, lower, x, floor - lower - upper, step * 0.92, upper);
  }
  out += fmt::format("<line class=\"axis\" x1=\"{}\" x2=\"{}\" y1=\"{}\" y2=\"{}\"/>\n", left,
                     chart_width - right, floor, floor);
  constexpr std::array<uint64_t, 12> ticks = {
      100, 1'000, 10'000, 100'000, 1'000'000, 10'000'000, 100'000'000, 1'000'000'000, 10'000'000'000};
  for (const uint64_t tick : ticks) {
    const double at = tick == 0 ? -1 : place(tick, first);
    if (at > 0 && at < last - first + 1) {
      out += fmt::format("<text x=\"{:.1f}\" y=\"{}\" text-anchor=\"middle\">{}</text>\n", left + step * at,
                         chart_height - 8, human_ns(tick));
    }
  }
  constexpr std::array<std::pair<double, const char*>, 2> marks = {{{0.5, "p50"}, {0.99, "p99"}}};
  for (const auto& [q, label] : marks) {
    const uint64_t ns = all.quantile_ns(q);
    const double x = left + step * std::clamp(place(ns, first) - 0.5, 0.0, last - first + 1.0);
    out += fmt::format(
        "<line class=\"mark\" x1=\"{:.1f}\" x2=\"{:.1f}\" y1=\"{}\" y2=\"{}\"/>"
        "<text x=\"{:.1f}\" y=\"{}\" text-anchor=\"{}\">{} {}</text>\n",
        x, x, top, floor, x, top - 6,
        x > chart_width - 60 ? "end"
        : x < 60             ? "start"
                             : "middle",
        label, human_ns(ns));
  }
  return out + "</svg></figure>\n";
}

std::string cell(const std::string& text) {
  return "<td>" + html(text) + "</td>";
}

std::string header_row(std::initializer_list<const char*> names) {
  std::string out = "<table><thead><tr>";
  for (const char* name : names) {
    out += fmt::format("<th scope=\"col\">{}</th>", name);
  }
  return out + "</tr></thead><tbody>\n";
}

std::string transition_section(const Fleet& fleet) {
  std::string charts;
  std::string rows;
  for (unsigned t = 0; t < JT_TRANSITIONS; ++t) {
    const ledger::TransitionTotals& totals = fleet.transitions[t];
    const Histogram h = totals.total();
    if (h.count() == 0) {
      continue;
    }
    const std::string label = transition_label(static_cast<jt_transition>(t));
    charts += chart(label, totals);
    rows += "<tr>" + cell(label) + cell(human_count(h.extents())) + cell(human_bytes(h.bytes())) +
            cell(human_count(h.count())) + cell(human_ns(h.quantile_ns(0.5))) +
            cell(human_ns(h.quantile_ns(0.9))) + cell(human_ns(h.quantile_ns(0.99))) +
            cell(human_ns(h.max_ns())) + cell(percent(totals.by_payer[JT_PAYER_APP].sum_ns(), h.sum_ns())) +
            "</tr>\n";
  }
  if (rows.empty()) {
    return "<p>No purge was seen.</p>\n";
  }
  return "<h2>Calls by latency</h2>\n<p class=\"soft\">Paid by<span class=\"key\" style=\"background:"
         "var(--app)\"></span>the program's threads<span class=\"key\" "
         "style=\"background:var(--background)\">"
         "</span>jemalloc's background threads. The buckets are exact sums over all hosts.</p>\n"
         "<div class=\"charts\">\n" +
         charts + "</div>\n<h2>Transitions</h2>\n" +
         header_row({"Transition", "Extents", "Bytes", "Calls", "p50", "p90", "p99", "Max", "App pays"}) +
         rows + "</tbody></table>\n";
}

std::string group_section(const Fleet& fleet, GroupKind kind, const char* title, const char* column) {
  const auto top = top_groups(fleet, kind, 2 * groups_shown);
  const uint64_t most = top.empty() ? 0 : top.front().second->app_ns;
  std::string out = fmt::format("<h2>{}</h2>\n", title) +
                    header_row({column, "Processes", "Calls", "Bytes", "p99", "Max", "App paid", ""});
  for (const auto& [key, group] : top) {
    const Histogram& h = group->purges;
    const bool any = h.count() > 0;
    const double share =
        most == 0 ? 0 : 100.0 * static_cast<double>(group->app_ns) / static_cast<double>(most);
    out += "<tr>" + cell(group_label(kind, *key)) + cell(human_count(group->processes)) +
           cell(human_count(h.count())) + cell(human_bytes(h.bytes())) +
           cell(any ? human_ns(h.quantile_ns(0.99)) : "") + cell(any ? human_ns(h.max_ns()) : "") +
           cell(human_ns(group->app_ns)) +
           fmt::format("<td class=\"bars\"><span class=\"bar\" style=\"width:{:.1f}%\"></span></td></tr>\n",
                       share);
  }
  out += "</tbody></table>\n";
  const size_t all = fleet.groups(kind).size();
  if (all > top.size()) {
    out += fmt::format("<p class=\"soft\">and {} more</p>\n", human_count(all - top.size()));
  }
  return out;
}

}  // namespace

std::string merged_html(const Fleet& fleet) {
  std::string out(head);
  out += fmt::format("<h1>jemalloc's purges across the fleet</h1>\n<p>{}</p>\n", html(fleet_words(fleet)));
  out += transition_section(fleet);
  out += "<h2>What is known</h2>\n<dl>\n";
  for (const auto& [label, text] : fleet_facts(fleet)) {
    out += fmt::format("<dt>{}</dt><dd>{}</dd>\n", html(label), html(text));
  }
  out += "</dl>\n";
  out += group_section(fleet, GroupKind::host, "Hosts whose programs paid the most", "Host");
  out += group_section(fleet, GroupKind::cgroup, "Cgroups", "Cgroup");
  out += group_section(fleet, GroupKind::version, "Versions of jemalloc", "Version");
  return out +
         fmt::format("<p class=\"soft\">Written by jemtrace {}.</p>\n</body>\n</html>\n", JEMTRACE_VERSION);
}

}  // namespace jemtrace::render
