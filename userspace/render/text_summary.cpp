#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "render/summary_page.hpp"

namespace jemtrace::render {
namespace {

using ledger::Histogram;
using ledger::Summary;

constexpr int madv_free = 8;

// ---- the table of transitions ----

struct TransitionRow {
  jt_transition transition;
  const char* label;
  const char* how;
};

constexpr TransitionRow purge_rows[] = {
    {JT_DIRTY_MUZZY, "dirty -> muzzy", "MADV_FREE"},
    {JT_MUZZY_RETAINED, "muzzy -> retained", "MADV_DONTNEED"},
    {JT_DIRTY_RETAINED, "dirty -> retained", "MADV_DONTNEED"},
    {JT_UNKNOWN_RETAINED, "unknown -> retained", "MADV_DONTNEED"},
};
constexpr TransitionRow return_rows[] = {
    {JT_DIRTY_RETURNED, "dirty -> returned", "munmap"},
    {JT_MUZZY_RETURNED, "muzzy -> returned", "munmap"},
    {JT_RETAINED_RETURNED, "retained -> returned", "munmap"},
    {JT_UNKNOWN_RETURNED, "unknown -> returned", "munmap"},
};

bool muzzy_is_off(const Summary& s) {
  return setting(s.target, "muzzy_decay_ms") == "0" &&
         s.totals.transitions[JT_DIRTY_MUZZY].total().count() == 0 &&
         s.totals.transitions[JT_MUZZY_RETAINED].total().count() == 0;
}

/// A row of zeros says that something could have happened and did not.
bool can_happen(const Summary& s, jt_transition transition) {
  if (!sources_known(s.target)) {
    return false;
  }
  switch (transition) {
    case JT_DIRTY_MUZZY:
    case JT_MUZZY_RETAINED:
      return !muzzy_is_off(s);
    case JT_DIRTY_RETAINED:
      return setting(s.target, "retain") != "false";
    default:
      return false;
  }
}

Columns transition_columns(size_t width) {
  return Columns(
      {{"", 34, true}, {"EXTENTS", 9}, {"BYTES", 7}, {"P50", 6}, {"P90", 6}, {"P99", 6}, {"MAX", 6}}, width);
}

std::vector<std::string> transition_cells(const std::string& label, const std::string& how,
                                          const Histogram& h) {
  std::vector<std::string> cells = {pad_right(label, 21) + how, human_count(h.extents())};
  if (h.count() == 0) {
    cells.insert(cells.end(), {"", "", "", "", ""});  // not unknown: there is none
    return cells;
  }
  cells.insert(cells.end(),
               {human_bytes(h.bytes()), human_ns(h.quantile_ns(0.5)), human_ns(h.quantile_ns(0.9)),
                human_ns(h.quantile_ns(0.99)), human_ns(h.max_ns())});
  return cells;
}

std::string how_given_back(const Summary& s, const TransitionRow& row) {
  const bool forced = std::string_view(row.how) == "MADV_DONTNEED";
  return s.decommit && forced ? "PROT_NONE" : row.how;
}

void transition_table(Page& page, const Summary& s) {
  const Columns columns = transition_columns(page.options().width);
  const std::string traced = seconds(s.window_ns) + " traced" + (s.exited ? ", until it exited" : "");
  page.heading(columns.row({traced, "EXTENTS", "BYTES", "P50", "P90", "P99", "MAX"}));
  for (const TransitionRow& row : purge_rows) {
    const Histogram h = s.totals.transitions[row.transition].total();
    if (h.count() > 0 || can_happen(s, row.transition)) {
      page.line(columns.row(transition_cells(row.label, how_given_back(s, row), h)));
    }
  }
  bool returned = false;
  for (const TransitionRow& row : return_rows) {
    const Histogram h = s.totals.transitions[row.transition].total();
    if (h.count() > 0) {
      page.line(columns.row(transition_cells(row.label, row.how, h)));
      returned = true;
    }
  }
  if (!returned) {
    page.line(columns.row(transition_cells("returned", "munmap", Histogram())));
  }
}

bool madv_free_unseen(const Summary& s) {
  return std::none_of(s.callsites.begin(), s.callsites.end(), [](const auto& site) {
    return (site.syscall == JT_SYS_MADVISE || site.syscall == JT_SYS_PROCESS_MADVISE) &&
           site.advice == madv_free;
  });
}

void no_madv_free_line(Page& page, const Summary& s) {
  if (!muzzy_is_off(s) || !madv_free_unseen(s)) {
    return;
  }
  const auto& muzzy = s.target.conf.at("muzzy_decay_ms");
  const bool by_default = muzzy.source.rfind("default", 0) == 0;
  const bool unmapped = setting(s.target, "retain") == "false";
  page.sentence(fmt::format("MADV_FREE was not used: muzzy_decay_ms is 0{}, dirty pages {}.",
                            by_default ? " (the default since 5.2)" : "",
                            unmapped ? "are unmapped" : "go straight to retained"));
}

Histogram all_purges(const Summary& s, unsigned first_payer, unsigned last_payer) {
  Histogram sum;
  for (const ledger::TransitionTotals& totals : s.totals.transitions) {
    for (unsigned payer = first_payer; payer <= last_payer; ++payer) {
      sum.merge(totals.by_payer[payer]);
    }
  }
  return sum;
}

/// Why nothing may have happened, where that is known for sure.
void nothing_purged_line(Page& page, const Summary& s) {
  std::string why;
  if (setting(s.target, "dirty_decay_ms") == "-1") {
    why = ": dirty_decay_ms is -1, jemalloc does not purge dirty pages by itself";
  } else if (setting(s.target, "background_thread") == "false") {
    why = ": without background threads jemalloc purges only while the program calls it";
  }
  page.sentence("No purge was seen" + why + ".");
}

void tier_lines(Page& page, const Summary& s) {
  if (sources_known(s.target)) {
    return;
  }
  if (s.target.images.empty()) {
    page.sentence("No jemalloc was seen in this process.");
    return;
  }
  if (purges_unproven(s.target)) {
    page.sentence(
        "Stripped: purges are seen by their system calls alone. Which cache a range came from (dirty or "
        "muzzy), its "
        "arena and the sweeps are not known, and a zero fill looks like a purge.");
  } else {
    page.sentence(
        "Stripped: only call sites are known. Which cache a range came from (dirty or muzzy), its arena and "
        "the sweeps "
        "are not known.");
  }
}

void callsite_table(Page& page, const Summary& s) {
  constexpr size_t shown = 5;
  if (sources_known(s.target) || s.callsites.empty()) {
    return;
  }
  std::vector<std::vector<std::string>> rows;
  for (const ledger::CallSiteTotals& site : s.callsites) {
    if (rows.size() == shown) {
      break;
    }
    std::string where = site.image.empty() ? "not in a jemalloc" : base_name(site.image);
    for (size_t i = 0; i < site.frames.size() && site.frames[i] != 0; ++i) {
      const bool named = i < site.functions.size() && !site.functions[i].empty();
      where += (i > 0   ? " < "
                : named ? " "
                        : "") +
               (named ? escape(site.functions[i]) : fmt::format("+{:#x}", site.frames[i]));
    }
    rows.push_back(
        {where, call_name(site.syscall, site.advice), human_count(site.calls), human_bytes(site.bytes)});
  }
  Columns columns({{"CALLED FROM", 0, true, 0, "", 16}, {"CALL", 0, true}, {"CALLS"}, {"BYTES", 7}},
                  page.options().width);
  columns.fit(rows);
  page.line("");
  page.heading(columns.header());
  for (const auto& row : rows) {
    page.line(columns.row(row));
  }
  if (s.callsites.size() > shown) {
    page.line(fmt::format("and {} more call sites (-f json lists them)", s.callsites.size() - shown));
  }
}

// ---- who paid ----

std::string oversize_clause(const Summary& s, uint64_t app_ns) {
  const jt_calls& oversize = s.totals.counters.by_purpose[JT_PURGE_OVERSIZE];
  if (oversize.calls == 0 || app_ns == 0) {
    return {};
  }
  const uint64_t part = std::min(oversize.total_ns, app_ns);
  const std::string threshold = setting(s.target, "oversize_threshold");
  const std::string what =
      threshold.empty() ? "oversize extents" : glue("extents of " + size_words(threshold) + " and more");
  // Time is measured on both sides: within a hundredth it is the same.
  const bool all = part >= app_ns - app_ns / 100;
  return fmt::format("{} of it {} purged inside free()", all ? "all" : share(part, app_ns), what);
}

/// Threads of one name belong together: a pool is one payer.
std::vector<std::pair<std::string, uint64_t>> paid_by_name(const Summary& s) {
  std::map<std::string, uint64_t> sums;
  for (const ledger::ThreadWork& thread : s.payers) {
    sums[thread.comm] += thread.latency_ns;
  }
  std::vector<std::pair<std::string, uint64_t>> sorted(sums.begin(), sums.end());
  std::stable_sort(sorted.begin(), sorted.end(),
                   [](const auto& a, const auto& b) { return a.second > b.second; });
  return sorted;
}

void paid_by_lines(Page& page, const Summary& s) {
  constexpr size_t shown = 4;
  const Histogram all = all_purges(s, JT_PAYER_APP, JT_PAYER_BACKGROUND);
  const Histogram app = all_purges(s, JT_PAYER_APP, JT_PAYER_APP);
  if (all.count() == 0) {
    return;
  }
  const auto names = paid_by_name(s);
  uint64_t total = 0;
  uint64_t rest = 0;
  for (size_t i = 0; i < names.size(); ++i) {
    total += names[i].second;
    rest += i < shown ? 0 : names[i].second;
  }
  Phrases who;
  for (size_t i = 0; i < names.size() && i < shown; ++i) {
    who.add(glue(cut_middle(escape(names[i].first), 30)) + glue(" ") + share(names[i].second, total));
  }
  if (names.size() > shown) {
    who.add(glue(fmt::format("{} others ", names.size() - shown)) + share(rest, total));
  }
  page.labelled("paid by", who.empty() ? "threads unknown" : who.text());
  const std::string oversize = oversize_clause(s, app.sum_ns());
  std::string on_app = "none of it on application threads";
  if (app.sum_ns() > 0 && app.sum_ns() == all.sum_ns()) {
    on_app = "on application threads";
  } else if (app.sum_ns() > 0) {
    on_app =
        fmt::format("{} ({}) on application threads", share(app.sum_ns(), all.sum_ns()), time(app.sum_ns()));
  }
  page.labelled("", fmt::format("{} in all, {}{}", time(all.sum_ns()), on_app,
                                oversize.empty() ? "" : ", " + oversize));
}

// ---- what swept ----

void sweep_lines(Page& page, const Summary& s) {
  if (!sources_known(s.target)) {
    return;  // said above
  }
  std::array<uint64_t, JT_STATES> by_state{};
  std::array<uint64_t, JT_CAUSES> by_cause{};
  for (unsigned state = 0; state < JT_STATES; ++state) {
    for (unsigned cause = 0; cause < JT_CAUSES; ++cause) {
      by_state[state] += s.totals.counters.sweeps[state][cause];
      by_cause[cause] += s.totals.counters.sweeps[state][cause];
    }
  }
  Phrases states;
  states.add(glue(human_count(by_state[JT_STATE_DIRTY]) + " dirty"));
  if (!muzzy_is_off(s) || by_state[JT_STATE_MUZZY] > 0) {
    states.add(glue(human_count(by_state[JT_STATE_MUZZY]) + " muzzy"));
  }
  if (by_state[JT_STATE_UNKNOWN] > 0) {
    states.add(glue(human_count(by_state[JT_STATE_UNKNOWN]) + " of unknown state"));
  }
  std::vector<unsigned> order;
  for (unsigned cause = 0; cause < JT_CAUSES; ++cause) {
    if (by_cause[cause] > 0) {
      order.push_back(cause);
    }
  }
  std::stable_sort(order.begin(), order.end(),
                   [&](unsigned a, unsigned b) { return by_cause[a] > by_cause[b]; });
  Phrases causes;
  for (const unsigned cause : order) {
    causes.add(
        glue(fmt::format("{} {}", human_count(by_cause[cause]), cause_words(static_cast<jt_cause>(cause)))));
  }
  page.labelled("sweeps", states.text() + (causes.empty() ? "" : ": " + causes.text()));
}

// ---- what is not in the table ----

struct PurposeWords {
  jt_purpose purpose;
  const char* one;
  const char* many;
  bool with_bytes;
};

void other_call_lines(Page& page, const Summary& s) {
  static constexpr PurposeWords words[] = {
      {JT_ZERO_FILL, "zero fill", "zero fills", true},
      {JT_THREAD_STACK, "thread stack trimmed", "thread stacks trimmed", true},
      {JT_FOREIGN, "call of the program's own", "calls of the program's own", true},
      {JT_METADATA, "metadata call", "metadata calls", false},
      {JT_TRIM, "trim of a mapping", "trims of mappings", false},
      {JT_BOOT_PROBE, "probe at start", "probes at start", false},
      {JT_OTHER_ADVICE, "other advice", "other advices", false},
  };
  const auto& by_purpose = s.totals.counters.by_purpose;
  Phrases harmless;
  for (const PurposeWords& w : words) {
    const jt_calls& c = by_purpose[w.purpose];
    if (c.calls > 0) {
      const std::string phrase = glue(plural(c.calls, w.one, w.many));
      harmless.add(w.with_bytes ? phrase + glue(" (" + human_bytes(c.bytes) + ")") : phrase);
    }
  }
  if (!harmless.empty()) {
    page.labelled("not purges", harmless.text());
  }
  // These do give pages back, or may: they are not called harmless.
  if (const jt_calls& c = by_purpose[JT_HPA]; c.calls > 0) {
    page.labelled("HPA", fmt::format("{} of the huge page allocator ({}), not in the table", calls(c.calls),
                                     bytes(c.bytes)));
  }
  if (const jt_calls& c = by_purpose[JT_ABANDON]; c.calls > 0) {
    page.labelled("abandoned", fmt::format("{} in {}: jemalloc had no memory left for its own records",
                                           bytes(c.bytes), calls(c.calls)));
  }
  if (const jt_calls& c = by_purpose[JT_UNCLASSIFIED]; c.calls > 0) {
    page.labelled("unsorted",
                  fmt::format("{} ({}) from functions of jemalloc that are not known: some may be purges",
                              calls(c.calls), bytes(c.bytes)));
  }
}

void failed_lines(Page& page, const jt_counters& counters) {
  const uint64_t inval = counters.failed_errno_inval;
  const uint64_t other = counters.failed_errno_other;
  if (inval > 0) {
    page.labelled(
        "failed",
        fmt::format("{} with EINVAL, most often because the memory is locked (mlock, mlockall): the "
                    "kernel does not give locked pages back",
                    calls(inval)));
  }
  if (other > 0) {
    page.labelled(inval > 0 ? "" : "failed", fmt::format("{} with another error", calls(other)));
  }
}

void lost_line(Page& page, const Summary& s) {
  const ledger::Losses& losses = s.losses;
  Phrases lost;
  Phrases unknown;
  for (unsigned i = 0; i < JT_LOSSES; ++i) {
    const char* kind = loss_words(static_cast<jt_loss>(i));
    if (!losses[i]) {
      unknown.add(kind);
    } else if (*losses[i] > 0) {
      lost.add(count(*losses[i]) + glue(" ") + kind);
    }
  }
  const char* nothing = s.exact           ? "nothing: every purge was counted"
                        : unknown.empty() ? "nothing"
                                          : "nothing that is counted";
  page.labelled("lost", lost.empty() ? nothing : lost.text() + "; on the whole host");
  if (!unknown.empty()) {
    page.labelled("", "not known: " + unknown.text());
  }
}

void cost_line(Page& page, const Summary& s) {
  const ledger::Cost& cost = s.cost;
  Phrases text;
  if (cost.bpf_run_ns) {
    text.add(fmt::format("about {} in the kernel ({})", time(*cost.bpf_run_ns),
                         glue(percent(*cost.bpf_run_ns, s.window_ns) + " of one CPU")));
  } else {
    text.add("kernel time unknown");
  }
  text.add(time(cost.cpu_ns) + " of jemtrace's own");
  text.add(time(cost.sampling_ns) + " reading /proc");
  text.add(bytes(cost.max_rss_bytes));
  page.labelled("cost", text.text());
}

constexpr const char* legend =
    "dirty: freed, kept; muzzy: the kernel may take it; retained: only addresses kept";

}  // namespace

std::string summary_text(const Summary& s, const TextOptions& options, bool with_legend) {
  Page page(options);
  if (options.several_targets) {
    page.heading(fmt::format("{} ({})", cut_middle(escape(s.target.comm), 40), s.target.pid));
  }
  transition_table(page, s);
  no_madv_free_line(page, s);
  const jt_counters& counters = s.totals.counters;
  const bool tried = counters.failed_errno_inval + counters.failed_errno_other > 0;
  const bool purged = all_purges(s, JT_PAYER_APP, JT_PAYER_BACKGROUND).count() > 0;
  if (!tried && !purged && sources_known(s.target)) {
    nothing_purged_line(page, s);
  }
  tier_lines(page, s);
  callsite_table(page, s);
  page.line("");
  paid_by_lines(page, s);
  memory_lines(page, s, purged);
  sweep_lines(page, s);
  other_call_lines(page, s);
  failed_lines(page, s.totals.counters);
  lost_line(page, s);
  cost_line(page, s);
  for (const std::string& caveat : s.caveats) {
    page.labelled("caveat", escape(caveat));
  }
  if (with_legend) {
    page.line(dim(legend, options));
  }
  return page.text();
}

}  // namespace jemtrace::render
