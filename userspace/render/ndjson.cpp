#include <array>
#include <utility>

#include "advise/advice.hpp"
#include "render/json_parts.hpp"
#include "render/output.hpp"
#include "render/words.hpp"
#include "util/text.hpp"

namespace jemtrace::render {
Json latency(const ledger::Histogram& h) {
  const auto quantile = [&](double q) { return h.count() == 0 ? Json(nullptr) : Json(h.quantile_ns(q)); };
  return {{"count", h.count()},
          {"sum_ns", h.sum_ns()},
          {"min_ns", h.count() == 0 ? Json(nullptr) : Json(h.min_ns())},
          {"p50_ns", quantile(0.5)},
          {"p90_ns", quantile(0.9)},
          {"p99_ns", quantile(0.99)},
          {"max_ns", h.count() == 0 ? Json(nullptr) : Json(h.max_ns())}};
}

Json mergeable_latency(const ledger::Histogram& h) {
  Json object = latency(h);
  object["schema"] = JT_HIST_SCHEMA;
  Json& buckets = object["buckets"] = Json::array();
  for (int i = 0; i < JT_HIST_BUCKETS; ++i) {
    if (h.raw().buckets[i] > 0) {
      buckets.push_back({JT_HIST_MIN_EXP * 8 + i, h.raw().buckets[i]});
    }
  }
  return object;
}

Json amounts(const ledger::Histogram& h) {
  return {{"extents_total", h.extents()},
          {"bytes_total", h.bytes()},
          {"calls_total", h.count()},
          {"latency", mergeable_latency(h)}};
}

Json transitions_total(const ledger::Transitions& transitions) {
  Json object = Json::object();
  for (unsigned t = 0; t < JT_TRANSITIONS; ++t) {
    Json entry = amounts(transitions[t].total());
    for (unsigned p = 0; p < JT_PAYERS; ++p) {
      entry["by_payer"][ledger::name(static_cast<jt_payer>(p))] = amounts(transitions[t].by_payer[p]);
    }
    object[ledger::name(static_cast<jt_transition>(t))] = std::move(entry);
  }
  return object;
}

namespace {

/// Of a window, hence no `_total`.
Json transitions_delta(const ledger::Transitions& transitions) {
  Json object = Json::object();
  for (unsigned t = 0; t < JT_TRANSITIONS; ++t) {
    const ledger::Histogram h = transitions[t].total();
    object[ledger::name(static_cast<jt_transition>(t))] = {
        {"extents", h.extents()}, {"bytes", h.bytes()}, {"calls", h.count()}, {"latency", latency(h)}};
  }
  return object;
}

uint64_t paid_ns(const ledger::Transitions& transitions, jt_payer payer) {
  uint64_t sum = 0;
  for (const ledger::TransitionTotals& totals : transitions) {
    sum += totals.by_payer[payer].sum_ns();
  }
  return sum;
}

Json sweeps_of(const jt_counters& counters, jt_state state) {
  uint64_t count = 0;
  Json by_cause = Json::object();
  for (unsigned c = 0; c < JT_CAUSES; ++c) {
    const uint64_t n = counters.sweeps[state][c];
    by_cause[ledger::name(static_cast<jt_cause>(c))] = n;
    count += n;
  }
  return {{"count", count}, {"by_cause", by_cause}};
}

Json sweeps(const ledger::Summary& summary) {
  if (!sources_known(summary.target)) {
    return {{"dirty", nullptr}, {"muzzy", nullptr}};
  }
  Json object = {{"dirty", sweeps_of(summary.totals.counters, JT_STATE_DIRTY)},
                 {"muzzy", sweeps_of(summary.totals.counters, JT_STATE_MUZZY)}};
  object["unknown"] = sweeps_of(summary.totals.counters, JT_STATE_UNKNOWN);
  return object;
}

/// jemalloc's names. With a source that could not be told for a few extents, those are named apart: the rest
/// are then lower bounds.
Json decay_counters(const ledger::Summary& summary) {
  const bool known = sources_known(summary.target);
  const auto value = [&](uint64_t n, jt_state state) {
    return known || state == JT_STATE_UNKNOWN ? Json(n) : Json(nullptr);
  };
  Json object = Json::object();
  for (const jt_state state : {JT_STATE_DIRTY, JT_STATE_MUZZY, JT_STATE_UNKNOWN}) {
    const jt_decay_counters& c = summary.totals.counters.decay[state];
    const std::string prefix = ledger::name(state);
    // What a sweep is cannot be seen at all where the sources cannot.
    object[prefix + "_npurge"] = known ? Json(c.npurge) : Json(nullptr);
    object[prefix + "_nmadvise"] = value(c.nmadvise, state);
    object[prefix + "_purged"] = value(c.purged, state);
  }
  return object;
}

Json payers(const std::vector<ledger::ThreadWork>& threads) {
  Json array = Json::array();
  for (const ledger::ThreadWork& thread : threads) {
    array.push_back({{"tid", thread.tid},
                     {"comm", text(thread.comm)},
                     {"payer", ledger::name(thread.payer)},
                     {"calls", thread.calls},
                     {"latency_ns", thread.latency_ns},
                     {"bytes", thread.bytes}});
  }
  return array;
}

Json rss(const ledger::RssAccount& account) {
  const bool delta = account.purge_delta_bytes.has_value();
  return {{"start_bytes", maybe(account.start_bytes)},
          {"end_bytes", maybe(account.end_bytes)},
          {"max_bytes", maybe(account.max_bytes)},
          {"lazyfree_end_bytes", maybe(account.lazyfree_end_bytes)},
          {"purge_delta_bytes", maybe(account.purge_delta_bytes)},
          {"purge_delta_error_bytes", delta ? Json(account.purge_delta_error_bytes) : Json(nullptr)}};
}

Json asked(const ledger::Maybe<ledger::Asked>& asked) {
  if (!asked) {
    return nullptr;
  }
  Json values = Json::array();
  for (const ledger::Asked::Value& one : asked->values) {
    values.push_back({{"name", text(one.name)}, {"value", one.value}, {"age_ms", maybe(one.age_ms)}});
  }
  return {{"values", values},
          {"compared_total", asked->compared},
          {"different_total", asked->different},
          {"skipped_total", asked->skipped}};
}

Json overhead_or_null(const ledger::Overhead& overhead) {
  if (overhead.of.empty()) {
    return nullptr;
  }
  const ledger::TrendReport& trend = overhead.trend;
  const bool known = trend.trend != ledger::Trend::unknown;
  return {{"of", overhead.of},
          {"trend", known ? Json(ledger::name(trend.trend)) : Json(nullptr)},
          {"bytes_per_second", known ? Json(trend.per_second) : Json(nullptr)},
          {"period_s", maybe(trend.period_s)},
          {"low_bytes", known ? Json(trend.low_bytes) : Json(nullptr)},
          {"high_bytes", known ? Json(trend.high_bytes) : Json(nullptr)}};
}

Json pressed(const ledger::Pressed& pressed) {
  return {{"of", text_or_null(pressed.of)},
          {"some_avg10_percent", pressed.pressure ? Json(pressed.pressure->some_avg10) : Json(nullptr)},
          {"full_avg10_percent", pressed.pressure ? Json(pressed.pressure->full_avg10) : Json(nullptr)},
          {"pglazyfreed_pages", maybe(pressed.lazyfreed_pages)}};
}

Json touched(const ledger::Refaults& all, const ledger::Touched& within) {
  return {{"touched_pages", within.pages},
          {"touched_max_pages", within.most_pages},
          {"waiting_pages", within.waiting_pages},
          {"share", maybe(all.share(within))},
          {"share_min", maybe(all.least_share(within))},
          {"share_max", maybe(all.most_share(within))}};
}

Json refaults(const ledger::Maybe<ledger::Refaults>& measured) {
  if (!measured) {
    return nullptr;
  }
  const ledger::Refaults& all = *measured;
  Json by_from = Json::object();
  for (const jt_state state : {JT_STATE_DIRTY, JT_STATE_MUZZY, JT_STATE_UNKNOWN}) {
    by_from[ledger::name(state)] = {{"followed_pages", all.followed_from[state]},
                                    {"touched_pages", all.touched_from[state]}};
  }
  return {{"purged_pages", all.purged_pages},
          {"followed_pages", all.followed_pages},
          {"sampling_rate", maybe(all.sampling_rate())},
          {"within_1s", touched(all, all.within_1s)},
          {"within_10s", touched(all, all.within_10s)},
          {"within_60s", touched(all, all.within_60s)},
          {"by_from", by_from},
          {"evicted_pages", all.evicted_pages},
          {"evicted_chunks", all.evicted_chunks}};
}

Json losses(const ledger::Losses& lost) {
  Json object = Json::object();
  for (unsigned i = 0; i < JT_LOSSES; ++i) {
    object[ledger::name(static_cast<jt_loss>(i))] = maybe(lost[i]);
  }
  return object;
}

Json cost(const ledger::Cost& spent) {
  return {{"bpf_run_ns", maybe(spent.bpf_run_ns)},
          {"bpf_samples", spent.bpf_samples},
          {"events", spent.events},
          {"sampling_ns", spent.sampling_ns},
          {"cpu_ns", spent.cpu_ns},
          {"max_rss_bytes", spent.max_rss_bytes},
          {"probe_hits", spent.probe_hits}};
}

Json failed_calls(const jt_counters& counters) {
  return {{"einval", counters.failed_errno_inval}, {"other", counters.failed_errno_other}};
}

/// Calls that purge nothing, or nothing that the transitions count.
Json other_calls(const jt_counters& counters) {
  static constexpr std::array purposes = {JT_ZERO_FILL, JT_BOOT_PROBE,  JT_METADATA,     JT_HPA,
                                          JT_TRIM,      JT_ABANDON,     JT_OTHER_ADVICE, JT_THREAD_STACK,
                                          JT_FOREIGN,   JT_UNCLASSIFIED};
  Json object = Json::object();
  for (const jt_purpose purpose : purposes) {
    const jt_calls& calls = counters.by_purpose[purpose];
    object[ledger::name(purpose)] = {{"calls_total", calls.calls}, {"bytes_total", calls.bytes}};
  }
  return object;
}

Json callsites(const std::vector<ledger::CallSiteTotals>& sites) {
  Json array = Json::array();
  for (const ledger::CallSiteTotals& site : sites) {
    Json frames = Json::array();
    for (const uint64_t frame : site.frames) {
      frames.push_back(hex(frame));
    }
    Json functions = Json::array();
    for (const std::string& function : site.functions) {
      functions.push_back(text_or_null(function));
    }
    const bool advised = site.syscall == JT_SYS_MADVISE || site.syscall == JT_SYS_PROCESS_MADVISE;
    array.push_back({{"image", text_or_null(site.image)},
                     {"frames", frames},
                     {"functions", functions},
                     {"syscall", ledger::name(site.syscall)},
                     {"advice", advised ? Json(advice_name(site.advice)) : Json(nullptr)},
                     {"purpose", ledger::name(site.purpose)},
                     {"calls_total", site.calls},
                     {"bytes_total", site.bytes},
                     {"failed_total", site.failed},
                     {"latency_total_ns", site.total_ns}});
  }
  return array;
}

Json known_state(unsigned state) {
  return state == JT_STATE_UNKNOWN || state >= JT_STATES ? Json(nullptr)
                                                         : Json(ledger::name(static_cast<jt_state>(state)));
}

Json known_cause(unsigned cause) {
  return cause == JT_CAUSE_UNKNOWN || cause >= JT_CAUSES ? Json(nullptr)
                                                         : Json(ledger::name(static_cast<jt_cause>(cause)));
}

Json known_arena(uint32_t arena) {
  return arena == JT_NO_ARENA ? Json(nullptr) : Json(arena);
}

Json destination(unsigned transition) {
  switch (transition) {
    case JT_DIRTY_MUZZY:
      return "muzzy";
    case JT_DIRTY_RETAINED:
    case JT_MUZZY_RETAINED:
    case JT_UNKNOWN_RETAINED:
      return "retained";
    case JT_DIRTY_RETURNED:
    case JT_MUZZY_RETURNED:
    case JT_RETAINED_RETURNED:
    case JT_UNKNOWN_RETURNED:
      return "returned";
    default:
      return nullptr;  // no transition: a zero fill, a call that failed
  }
}

std::string comm_of(const jt_event_header& h) {
  const std::string comm(h.comm, sizeof h.comm);
  return comm.substr(0, comm.find('\0'));
}

/// How the source state is known.
Json from_method(const ledger::TransitionEvent& event) {
  if (event.raw.from == JT_STATE_UNKNOWN) {
    return nullptr;
  }
  if (event.from_history) {
    return "history";
  }
  return event.raw.cause == JT_CAUSE_UNKNOWN && event.raw.transition == JT_DIRTY_MUZZY ? "advice" : "probe";
}

Json transition_line(const ledger::TransitionEvent& event) {
  const jt_call_event& e = event.raw;
  const bool advised = e.syscall == JT_SYS_MADVISE || e.syscall == JT_SYS_PROCESS_MADVISE;
  return {{"type", "transition"},
          {"ts_ns", e.h.ts_ns},
          {"pid", e.h.id.tgid},
          {"tid", e.h.tid},
          {"comm", text(comm_of(e.h))},
          {"payer", ledger::name(static_cast<jt_payer>(e.payer))},
          {"arena", known_arena(e.arena)},
          {"from", known_state(e.from)},
          {"from_method", from_method(event)},
          {"to", destination(e.transition)},
          {"addr", hex(e.addr)},
          {"bytes", e.len},
          {"latency_ns", e.latency_ns},
          {"syscall", ledger::name(static_cast<jt_syscall>(e.syscall))},
          {"cause", known_cause(e.cause)},
          {"rss_delta_bytes", e.has_rss_delta != 0 ? Json(e.rss_delta_bytes) : Json(nullptr)},
          {"errno", e.ret < 0 ? -int64_t{e.ret} : int64_t{0}},
          {"advice", advised ? Json(advice_name(e.advice)) : Json(nullptr)},
          {"purpose", ledger::name(static_cast<jt_purpose>(e.purpose))}};
}

Json sweep_line(const ledger::SweepEvent& e) {
  return {{"type", "sweep"},
          {"ts_ns", e.ts_ns},
          {"pid", e.pid},
          {"tid", e.tid},
          {"arena", maybe(e.arena)},
          {"state", known_state(e.state)},
          {"cause", known_cause(e.cause)},
          {"limit_pages", maybe(e.limit_pages)},
          {"extents", e.extents},
          {"bytes", e.bytes},
          {"latency_ns", e.latency_ns}};
}

Json header_line(const ledger::Header& header) {
  Json command = Json::array();
  for (const std::string& word : header.command) {
    command.push_back(text(word));
  }
  return {{"type", "header"},
          {"schema", schema_version},
          {"jemtrace", text(header.jemtrace_version)},
          {"kernel", text_or_null(header.kernel)},
          {"host", text_or_null(header.host)},
          {"start_unix_ns", header.start_unix_ns},
          {"clock", "CLOCK_MONOTONIC"},
          {"command", command},
          {"start_mono_ns", maybe(header.start_mono_ns)}};
}

Json method_of(const ledger::Maybe<ledger::Sampled>& sampled) {
  return sampled ? text_or_null(sampled->method) : Json(nullptr);
}

Json age_of(const ledger::Maybe<ledger::Sampled>& sampled) {
  return sampled ? Json(sampled->age_ms) : Json(nullptr);
}

Json interval_line(const ledger::Interval& i) {
  const ledger::States& s = i.states;
  return {{"type", "interval"},
          {"pid", i.pid},
          {"comm", text(i.comm)},
          {"unix_ns", i.unix_ns},
          {"window_ns", i.window_ns},
          {"transitions", transitions_delta(i.delta.transitions)},
          {"app_latency_ns", paid_ns(i.delta.transitions, JT_PAYER_APP)},
          {"background_latency_ns", paid_ns(i.delta.transitions, JT_PAYER_BACKGROUND)},
          {"states", states_object(s)},
          {"rss_bytes", sampled_value(i.sample.rss_bytes)},
          {"lazyfree_bytes", sampled_value(i.sample.lazyfree_bytes)},
          {"method",
           {{"states", text_or_null(s.method)},
            {"rss_bytes", method_of(i.sample.rss_bytes)},
            {"lazyfree_bytes", method_of(i.sample.lazyfree_bytes)}}},
          {"age_ms",
           {{"states", maybe(s.age_ms)},
            {"rss_bytes", age_of(i.sample.rss_bytes)},
            {"lazyfree_bytes", age_of(i.sample.lazyfree_bytes)}}}};
}

Json summary_line(const ledger::Summary& s) {
  Json caveats = Json::array();
  for (const std::string& caveat : s.caveats) {
    caveats.push_back(text(caveat));
  }
  return {{"type", "summary"},
          {"pid", s.target.pid},
          {"start_time_ns", s.target.start_time_ns},
          {"comm", text(s.target.comm)},
          {"window_ns", s.window_ns},
          {"transitions", transitions_total(s.totals.transitions)},
          {"sweeps", sweeps(s)},
          {"counters", decay_counters(s)},
          {"payers", payers(s.payers)},
          {"rss", rss(s.rss)},
          {"states", states_object(s.states)},
          {"overhead", overhead_or_null(s.overhead)},
          {"pressure", pressed(s.pressed)},
          {"losses", losses(s.losses)},
          {"cost", cost(s.cost)},
          {"failed_calls", failed_calls(s.totals.counters)},
          {"other", other_calls(s.totals.counters)},
          {"unproven",
           {{"calls_total", s.totals.counters.by_purpose[JT_PURGE_UNPROVEN].calls},
            {"bytes_total", s.totals.counters.by_purpose[JT_PURGE_UNPROVEN].bytes}}},
          {"oversize_extents_total",
           sources_known(s.target) ? Json(s.totals.counters.oversize_extents) : Json(nullptr)},
          {"callsites", callsites(s.callsites)},
          {"exact", s.exact},
          {"exited", s.exited},
          {"caveats", caveats},
          {"refaults", refaults(s.refaults)},
          {"collapses", s.collapses ? Json({{"huge_pages_total", s.collapses->huge_pages},
                                            {"filled_bytes_total", s.collapses->filled_bytes}})
                                    : Json(nullptr)},
          {"asked", asked(s.asked)}};
}

class NdjsonOutput final : public Output {
 public:
  explicit NdjsonOutput(Sink& sink) : sink_(sink) {}

  void header(const ledger::Header& header) override { put_now(header_line(header)); }
  void target(const ledger::TargetInfo& target) override { put_now(target_line(target)); }
  void interval(const ledger::Interval& interval) override { put_now(interval_line(interval)); }
  // Events come by the thousand: they wait for the buffer, or for the next line that does not.
  void transition(const ledger::TransitionEvent& event) override { put(transition_line(event)); }
  void sweep(const ledger::SweepEvent& event) override { put(sweep_line(event)); }
  void summary(const ledger::Summary& summary) override { put_now(summary_line(summary)); }

  void list(const std::vector<ListRow>& rows) override {
    for (const ListRow& row : rows) {
      put(list_line(row));
    }
    sink_.flush();
  }
  void image(const ImageReport& report) override { put_now(image_line(report)); }
  void stats(const StatsReport& report) override { put_now(stats_line(report)); }
  void diagnosis(const DiagnosisReport& report) override {
    for (const ledger::Finding& finding : report.findings) {
      put(finding_line(finding));
    }
    if (report.memory) {
      put(stats_line(*report.memory));
    }
    put_now(diagnosis_line(report));
  }
  void flush(const FlushReport& report) override { put_now(flush_line(report)); }
  void series(const advise::Input& input) override { put_now(series_line(input)); }
  void advice(const advise::Advice& advice) override { put_now(advice_line(advice)); }
  void trials(const advise::SweepReport& report) override {
    for (const advise::Trial& trial : report.trials) {
      put(trial_line(trial, report));
    }
    sink_.flush();
  }
  void check(const std::vector<CheckItem>& items) override {
    for (const CheckItem& item : items) {
      put(check_line(item));
    }
    sink_.flush();
  }
  void merged(const ledger::Fleet& fleet) override {
    merged_lines(fleet, [this](const Json& line) { put(line); });
    sink_.flush();
  }

 private:
  // All text is escaped already; `replace` is for what a future field might forget: never an exception, never
  // bad UTF-8.
  void put(const Json& line) {
    sink_.write(line.dump(-1, ' ', false, Json::error_handler_t::replace) + '\n');
  }
  void put_now(const Json& line) {
    put(line);
    sink_.flush();
  }

  Sink& sink_;
};

}  // namespace

std::unique_ptr<Output> make_ndjson(Sink& sink) {
  return std::make_unique<NdjsonOutput>(sink);
}

}  // namespace jemtrace::render
