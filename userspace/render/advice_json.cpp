#include <algorithm>
#include <iterator>

#include "advise/advice.hpp"
#include "render/json_parts.hpp"

namespace jemtrace::render {
namespace {

using advise::Settings;

Json settings_object(const Settings& settings) {
  return {{"dirty_decay_ms", settings.dirty_ms},
          {"muzzy_decay_ms", settings.muzzy_ms},
          {"background_thread", settings.background}};
}

Json decay_object(const ledger::DecayReading& decay) {
  return {{"time_ms", maybe(decay.time_ms)},
          {"epoch_ns", maybe(decay.epoch_ns)},
          {"deadline_ns", maybe(decay.deadline_ns)},
          {"nunpurged_pages", maybe(decay.nunpurged_pages)},
          {"backlog_pages", decay.backlog_pages}};
}

Json arena_object(const advise::ArenaActivity& arena) {
  Json points = Json::array();
  for (const advise::Point& point : arena.points) {
    points.push_back(
        {point.at, point.active, point.dirty, point.muzzy, maybe(point.gone), maybe(point.taken)});
  }
  Json asked = Json::array();
  for (const advise::Asked& one : arena.asked) {
    asked.push_back({one.pages, one.extents});
  }
  std::string chances;
  std::transform(arena.chances.begin(), arena.chances.end(), std::back_inserter(chances),
                 [](advise::Chance chance) { return static_cast<char>(chance); });
  return {{"index", arena.index},
          {"dirty_decay_ms", arena.dirty_ms},
          {"muzzy_decay_ms", arena.muzzy_ms},
          {"dirty_start", decay_object(arena.dirty_start)},
          {"muzzy_start", decay_object(arena.muzzy_start)},
          {"chances", chances},
          {"asked", asked},
          {"points", points}};
}

Json costs_object(const advise::Input& in) {
  return {{"madv_free_ns_per_page", in.costs.lazy_ns},
          {"madv_free_from", name(in.origins.lazy)},
          {"madv_dontneed_ns_per_page", in.costs.forced_ns},
          {"madv_dontneed_from", name(in.origins.forced)},
          {"refault_ns_per_page", in.costs.fault_ns},
          {"refault_from", name(advise::CostSource::calibrated)}};
}

Json model_object(const advise::Model& model) {
  return {{"oversize_pages", maybe(model.oversize_pages)},
          {"changing_share", model.changing_share},
          {"touched_share", model.touched_share},
          {"own_background", model.own_background},
          {"background_ends_oversize", model.background_ends_oversize},
          {"max_background_threads", model.background_threads},
          {"first_wake_schedules", model.first_wake_schedules},
          {"busy_chances_per_s", maybe(model.busy_chances)},
          {"idle_chances_per_s", maybe(model.idle_chances)}};
}

Json measured_object(const advise::Measured& measured) {
  return {{"seconds", measured.seconds},
          {"mean_rss_bytes", measured.mean_rss_bytes},
          {"max_rss_bytes", measured.max_rss_bytes},
          {"mean_resident_bytes", measured.mean_resident_bytes},
          {"mean_allocated_bytes", maybe(measured.mean_allocated_bytes)},
          {"purged_pages", maybe(measured.purged_pages)},
          {"refaulted_pages", maybe(measured.refaulted_pages)},
          {"app_purge_ns", measured.app_purge_ns},
          {"background_purge_ns", measured.background_purge_ns}};
}

Json outcome_object(const advise::Outcome& out, uint64_t page_bytes) {
  const double ns = out.seconds * 1e9;
  const auto page = static_cast<double>(page_bytes);
  return {{"mean_resident_bytes", out.mean_resident * page},
          {"peak_resident_bytes", out.peak_resident * page_bytes},
          {"purged_pages_per_s", static_cast<double>(out.purged()) / out.seconds},
          {"refaulted_pages_per_s", static_cast<double>(out.refaulted) / out.seconds},
          {"app_purge_cpu", out.app_purge_ns / ns},
          {"background_purge_cpu", out.background_purge_ns / ns},
          {"refault_cpu", out.fault_ns / ns},
          {"stall_p99_ns", maybe(out.stall_p99_ns)},
          {"at_least", out.at_least}};
}

Json texts(const std::vector<std::string>& sentences) {
  Json array = Json::array();
  for (const std::string& sentence : sentences) {
    array.push_back(text(sentence));
  }
  return array;
}

Json candidates(const advise::Advice& advice) {
  Json array = Json::array();
  for (const advise::Candidate& candidate : advice.candidates) {
    Json object = settings_object(candidate.settings);
    object.update(outcome_object(candidate.outcome, advice.input.activity.page_bytes));
    object["pareto"] = candidate.front;
    const auto per_s = [&](uint64_t pages) { return static_cast<double>(pages) / candidate.outcome.seconds; };
    object["least_refaulted_pages_per_s"] = per_s(candidate.least_refaulted);
    object["most_refaulted_pages_per_s"] = per_s(candidate.most_refaulted);
    array.push_back(std::move(object));
  }
  return array;
}

Json recommendations(const advise::Advice& advice) {
  Json array = Json::array();
  for (const advise::Recommendation& one : advice.recommendations) {
    Json object = {{"goal", name(one.goal)}, {"keep", one.keep}, {"conf", text(one.conf)}};
    object.update(settings_object(advice.candidates[one.candidate].settings));
    array.push_back(std::move(object));
  }
  return array;
}

Json fit_object(const advise::Fit& fit) {
  return {{"simulated_resident_bytes", fit.simulated_resident_bytes},
          {"measured_resident_bytes", fit.measured_resident_bytes},
          {"simulated_purged_pages", fit.simulated_purged_pages},
          {"measured_purged_pages", maybe(fit.measured_purged_pages)},
          {"simulated_refaulted_pages", fit.simulated_refaulted_pages},
          {"measured_refaulted_pages", maybe(fit.measured_refaulted_pages)},
          {"error", fit.error}};
}

Json rhythm_or_null(const std::optional<advise::Rhythm>& rhythm) {
  if (!rhythm) {
    return nullptr;
  }
  return {{"period_s", rhythm->period_s},
          {"low_bytes", rhythm->low_bytes},
          {"high_bytes", rhythm->high_bytes},
          {"gives_back_decay_ms", maybe(rhythm->gives_back_ms)},
          {"keeps_decay_ms", maybe(rhythm->keeps_ms)}};
}

}  // namespace

Json series_line(const advise::Input& in) {
  Json arenas = Json::array();
  for (const advise::ArenaActivity& arena : in.activity.arenas) {
    arenas.push_back(arena_object(arena));
  }
  Json others = Json::array();
  for (const advise::Input& other : in.others) {
    others.push_back(series_line(other));
  }
  return {{"type", "series"},
          {"pid", in.pid},
          {"comm", text(in.comm)},
          {"version", text(in.version)},
          {"conf_variable", text(in.conf_variable)},
          {"current", settings_object(in.current)},
          {"page_bytes", in.activity.page_bytes},
          {"from_start", in.activity.from_start},
          {"unread_readings", in.activity.unread},
          {"costs", costs_object(in)},
          {"model", model_object(in.model)},
          {"measured", measured_object(in.measured)},
          {"times_ns", in.activity.times_ns},
          {"arenas", arenas},
          {"others", others}};
}

Json advice_line(const advise::Advice& advice) {
  const advise::Input& in = advice.input;
  return {{"type", "advice"},
          {"pid", in.pid},
          {"comm", text(in.comm)},
          {"version", text_or_null(in.version)},
          {"conf_variable", text_or_null(in.conf_variable)},
          {"window_ns", in.activity.span_ns()},
          {"period_ns", in.period_ns},
          {"current", settings_object(in.current)},
          {"measured", measured_object(in.measured)},
          {"costs", costs_object(in)},
          {"model", model_object(in.model)},
          {"fit", fit_object(advice.fit)},
          {"candidates", candidates(advice)},
          {"recommendations", recommendations(advice)},
          {"futile", texts(advice.futile)},
          {"rhythm", rhythm_or_null(advice.rhythm)},
          {"caveats", texts(in.caveats)}};
}

Json trial_line(const advise::Trial& trial, const advise::SweepReport& report) {
  Json predicted = nullptr;
  if (trial.predicted) {
    predicted = outcome_object(*trial.predicted, report.page_bytes);
    predicted["seconds"] = trial.predicted->seconds;
    predicted["purged_pages"] = trial.predicted->purged();
    predicted["refaulted_pages"] = trial.predicted->refaulted;
    predicted["mean_rss_bytes"] = trial.predicted_rss_bytes;
  }
  Json line = {{"type", "trial"}, {"comm", text(report.comm)}, {"conf", text(trial.conf)}};
  line.update(settings_object(trial.settings));
  line["runs"] = trial.runs;
  line["exit_status"] = trial.exit_status;
  line["wall_s"] = trial.wall_s;
  line["cpu_s"] = trial.cpu_s;
  line["rss_spread"] = trial.rss_spread;
  line["refaulted_spread"] = maybe(trial.refaulted_spread);
  line["measured"] = trial.runs > 0 ? measured_object(trial.measured) : Json(nullptr);
  line["predicted"] = predicted;
  line["caveats"] = texts(report.caveats);
  return line;
}

}  // namespace jemtrace::render
