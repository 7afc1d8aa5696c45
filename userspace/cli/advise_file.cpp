#include "cli/advise_file.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>

#include "sample/page_costs.hpp"
#include "util/text.hpp"

namespace jemtrace::cli {
namespace {

using nlohmann::json;

template <typename T>
std::optional<T> maybe(const json& object, const char* key) {
  const auto found = object.find(key);
  return found == object.end() || found->is_null() ? std::nullopt : std::optional(found->get<T>());
}

ledger::DecayReading decay_of(const json& object) {
  ledger::DecayReading decay;
  if (object.is_null()) {
    return decay;
  }
  decay.time_ms = maybe<int64_t>(object, "time_ms");
  decay.epoch_ns = maybe<uint64_t>(object, "epoch_ns");
  decay.deadline_ns = maybe<uint64_t>(object, "deadline_ns");
  decay.nunpurged_pages = maybe<uint64_t>(object, "nunpurged_pages");
  decay.backlog_pages = object.at("backlog_pages").get<std::vector<uint64_t>>();
  return decay;
}

uint64_t pages_of(const json& value) {
  constexpr uint64_t most_pages = uint64_t{1} << 40;
  const auto number = value.get<uint64_t>();
  return number < most_pages ? number : throw std::out_of_range("more pages than there can be");
}

advise::ArenaActivity arena_of(const json& object, size_t times) {
  advise::ArenaActivity arena{.index = object.at("index").get<uint32_t>(),
                              .dirty_ms = object.at("dirty_decay_ms").get<int64_t>(),
                              .muzzy_ms = object.at("muzzy_decay_ms").get<int64_t>()};
  for (const json& row : object.at("points")) {
    const auto at = row.at(0).get<uint64_t>();
    if (at >= times || (!arena.points.empty() && at <= arena.points.back().at)) {
      throw std::out_of_range("a point of an arena that cannot be");
    }
    const auto pages = [&](size_t column) { return pages_of(row.at(column)); };
    arena.points.push_back({static_cast<uint32_t>(at), pages(1), pages(2), pages(3),
                            row.at(4).is_null() ? std::nullopt : std::optional(pages(4)),
                            row.at(5).is_null() ? std::nullopt : std::optional(pages(5))});
  }
  for (const char c : object.at("chances").get<std::string>()) {
    arena.chances.push_back(c == '1'   ? advise::Chance::taken
                            : c == '0' ? advise::Chance::none
                                       : advise::Chance::unknown);
  }
  for (const json& row : object.at("asked")) {
    const auto one = pages_of(row.at(0));
    const auto extents = pages_of(row.at(1));
    if (one == 0 || one >= uint64_t{1} << 28 || extents == 0) {
      throw std::out_of_range("blocks that cannot be");
    }
    arena.asked.push_back({one, extents});
  }
  if (arena.points.empty()) {
    throw std::out_of_range("an arena without points");
  }
  arena.dirty_start = decay_of(object.at("dirty_start"));
  arena.muzzy_start = decay_of(object.at("muzzy_start"));
  return arena;
}

void check_times(const std::vector<uint64_t>& times) {
  constexpr uint64_t longest_ns = uint64_t{1} << 55;  // a year
  const bool rising = std::adjacent_find(times.begin(), times.end(), std::greater_equal<>()) == times.end();
  if (!rising || times.size() < 2 || times.back() - times.front() > longest_ns) {
    throw std::out_of_range("times that do not rise");
  }
}

advise::Settings settings_of(const json& object) {
  return {object.at("dirty_decay_ms").get<int64_t>(), object.at("muzzy_decay_ms").get<int64_t>(),
          object.at("background_thread").get<bool>()};
}

advise::Input from_series(const json& line) {
  advise::Input in{.pid = line.at("pid").get<pid_t>(),
                   .comm = line.at("comm").get<std::string>(),
                   .conf_variable = line.at("conf_variable").get<std::string>(),
                   .version = line.at("version").get<std::string>()};
  in.activity.page_bytes = line.at("page_bytes").get<uint64_t>();
  in.activity.times_ns = line.at("times_ns").get<std::vector<uint64_t>>();
  check_times(in.activity.times_ns);
  in.activity.from_start = line.at("from_start").get<bool>();
  in.activity.unread = line.at("unread_readings").get<uint64_t>();
  for (const json& arena : line.at("arenas")) {
    in.activity.arenas.push_back(arena_of(arena, in.activity.times_ns.size()));
  }
  in.current = settings_of(line.at("current"));
  const json& costs = line.at("costs");
  in.costs = {costs.at("madv_free_ns_per_page").get<double>(),
              costs.at("madv_dontneed_ns_per_page").get<double>(),
              costs.at("refault_ns_per_page").get<double>()};
  const auto origin = [&](const char* key) {
    return costs.at(key) == "target" ? advise::CostSource::measured : advise::CostSource::calibrated;
  };
  in.origins = {origin("madv_free_from"), origin("madv_dontneed_from")};
  const json& model = line.at("model");
  in.model.oversize_pages = maybe<uint64_t>(model, "oversize_pages");
  in.model.own_background = model.at("own_background").get<bool>();
  in.model.background_ends_oversize = model.at("background_ends_oversize").get<bool>();
  in.model.background_threads = model.at("max_background_threads").get<unsigned>();
  in.model.first_wake_schedules = model.at("first_wake_schedules").get<bool>();
  in.model.busy_chances = maybe<double>(model, "busy_chances_per_s");
  in.model.idle_chances = maybe<double>(model, "idle_chances_per_s");
  in.model.usual = in.current;
  const json& measured = line.at("measured");
  in.measured = {.seconds = measured.at("seconds").get<double>(),
                 .mean_rss_bytes = measured.at("mean_rss_bytes").get<double>(),
                 .max_rss_bytes = measured.at("max_rss_bytes").get<uint64_t>(),
                 .mean_resident_bytes = measured.at("mean_resident_bytes").get<double>(),
                 .mean_allocated_bytes = maybe<double>(measured, "mean_allocated_bytes"),
                 .purged_pages = maybe<uint64_t>(measured, "purged_pages"),
                 .refaulted_pages = maybe<uint64_t>(measured, "refaulted_pages"),
                 .app_purge_ns = measured.at("app_purge_ns").get<double>(),
                 .background_purge_ns = measured.at("background_purge_ns").get<double>()};
  in.period_ns = in.activity.span_ns() / (in.activity.times_ns.size() - 1);
  for (const json& other : line.at("others")) {
    in.others.push_back(from_series(other));
  }
  return in;
}

/// What a trace says of one process.
// NOLINTNEXTLINE(bugprone-exception-escape): moving JSON does not throw, it asserts.
struct Traced {
  json target, summary;
  std::vector<json> intervals;
};

std::string conf_variable(const json& target) {
  const auto& images = target.is_null() ? json::array() : target.at("images");
  std::string variable =
      (images.empty() ? "" : images.front().at("prefix").get<std::string>()) + "malloc_conf";
  std::transform(variable.begin(), variable.end(), variable.begin(),
                 [](unsigned char c) { return static_cast<char>(std::toupper(c)); });
  return variable;
}

template <typename T>
T setting_or(const json& target, const char* option, T otherwise) {
  if (target.is_null() || !target.at("conf").contains(option) || target.at("conf").at(option).is_null()) {
    return otherwise;
  }
  return target.at("conf").at(option).at("value").get<T>();
}

void add_summary(advise::Input& in, const json& summary) {
  if (summary.is_null()) {
    return;
  }
  const auto purged = [&](const char* key) { return maybe<uint64_t>(summary.at("counters"), key); };
  const auto dirty = purged("dirty_purged");
  const auto muzzy = purged("muzzy_purged");
  if (dirty && muzzy) {
    in.measured.purged_pages = *dirty + *muzzy;
  }
  const auto cost = [&](std::initializer_list<const char*> kinds) -> std::optional<double> {
    double ns = 0;
    double pages = 0;
    for (const char* kind : kinds) {
      const json& totals = summary.at("transitions").at(kind);
      ns += totals.at("latency").at("sum_ns").get<double>();
      pages += totals.at("bytes_total").get<double>() / 4096;
    }
    return pages < 256 ? std::nullopt : std::optional(ns / pages);
  };
  if (const auto lazy = cost({"dirty_muzzy"})) {
    in.costs.lazy_ns = *lazy;
    in.origins.lazy = advise::CostSource::measured;
  }
  if (const auto forced = cost({"dirty_retained", "muzzy_retained"})) {
    in.costs.forced_ns = *forced;
    in.origins.forced = advise::CostSource::measured;
  }
}

/// The sums over arenas as one arena.
Result<advise::Input> from_trace(pid_t pid, const Traced& traced) {
  advise::Input in{.pid = pid, .comm = traced.intervals.front().at("comm").get<std::string>()};
  advise::ArenaActivity arena;
  double rss = 0;
  size_t rss_known = 0;
  for (const json& interval : traced.intervals) {
    const json& states = interval.at("states");
    const auto active = maybe<uint64_t>(states, "active_bytes");
    const auto dirty = maybe<uint64_t>(states, "dirty_bytes");
    const auto muzzy = maybe<uint64_t>(states, "muzzy_bytes");
    const auto at_ns = static_cast<uint64_t>(interval.at("unix_ns").get<int64_t>());
    if (!active || !dirty || !muzzy ||
        (!in.activity.times_ns.empty() && at_ns <= in.activity.times_ns.back())) {
      in.activity.unread += 1;
      continue;
    }
    arena.points.push_back({.at = static_cast<uint32_t>(in.activity.times_ns.size()),
                            .active = *active / 4096,
                            .dirty = *dirty / 4096,
                            .muzzy = *muzzy / 4096});
    in.activity.times_ns.push_back(at_ns);
    if (const auto bytes = maybe<uint64_t>(interval, "rss_bytes")) {
      rss += static_cast<double>(*bytes);
      in.measured.max_rss_bytes = std::max(in.measured.max_rss_bytes, *bytes);
      ++rss_known;
    }
  }
  if (in.activity.times_ns.size() < 10) {
    return fail(Errc::unsupported, fmt::format("pid {}: fewer than 10 intervals with known states", pid),
                "record it with jemtrace advise -f json --series, which reads states 100 times a second");
  }
  check_times(in.activity.times_ns);
  in.current = {setting_or<int64_t>(traced.target, "dirty_decay_ms", 10'000),
                setting_or<int64_t>(traced.target, "muzzy_decay_ms", 0),
                setting_or<bool>(traced.target, "background_thread", false)};
  arena.dirty_ms = in.current.dirty_ms;
  arena.muzzy_ms = in.current.muzzy_ms;
  in.activity.arenas.push_back(std::move(arena));
  in.conf_variable = conf_variable(traced.target);
  in.version = traced.target.is_null() || traced.target.at("images").empty()
                   ? ""
                   : maybe<std::string>(traced.target.at("images").front(), "version").value_or("");
  in.model = advise::make_model(in.activity, in.version, in.current, {});
  ASSIGN_OR_RETURN(const auto tried, sample::measure_page_costs(16));
  in.costs = {tried.lazy_ns, tried.forced_ns, tried.fault_ns};
  add_summary(in, traced.summary);
  in.period_ns = in.activity.span_ns() / (in.activity.times_ns.size() - 1);
  in.measured.seconds = static_cast<double>(in.activity.span_ns()) / 1e9;
  in.measured.mean_rss_bytes = rss_known == 0 ? 0 : rss / static_cast<double>(rss_known);
  in.measured.mean_resident_bytes = in.activity.mean_resident_pages() * 4096;
  in.caveats.push_back(fmt::format(
      "from intervals of {}, all arenas as one: what comes and goes in between is not seen; how often decay "
      "gets its chance is taken to be always while pages move",
      human_ns(in.period_ns)));
  in.caveats.emplace_back(
      "costs that the trace does not show were measured on this host, not on the one of the trace");
  return in;
}

struct Contents {
  std::vector<advise::Input> series;
  std::map<pid_t, Traced> traced;
};

void take(const json& line, Contents& contents) {
  const auto type = line.at("type").get<std::string>();
  if (type == "series") {
    contents.series.push_back(from_series(line));
  } else if (type == "target" || type == "summary" || type == "interval") {
    Traced& traced = contents.traced[line.at("pid").get<pid_t>()];
    if (type == "interval") {
      traced.intervals.push_back(line);
    } else {
      (type == "target" ? traced.target : traced.summary) = line;
    }
  }
}

Result<std::vector<advise::Input>> inputs_of(Contents contents, const std::string& path) {
  if (!contents.series.empty()) {
    return std::move(contents.series);
  }
  std::vector<advise::Input> inputs;
  std::optional<Error> refused;
  for (const auto& [pid, traced] : contents.traced) {
    if (traced.intervals.empty()) {
      continue;
    }
    if (auto input = from_trace(pid, traced)) {
      inputs.push_back(std::move(*input));
    } else {
      refused = std::move(input).error();
    }
  }
  if (!inputs.empty()) {
    return inputs;
  }
  return refused
             ? Result<std::vector<advise::Input>>(tl::unexpected(*refused))
             : fail(Errc::unsupported, escape(path) + " has neither series nor intervals in it",
                    "save one with jemtrace advise -f json --series -o FILE, or jemtrace -f json -o FILE");
}

Result<std::vector<advise::Input>> read_one(const std::string& path) {
  std::ifstream file(path);
  if (!file) {
    return fail_errno("cannot read " + escape(path));
  }
  if (std::error_code error; std::filesystem::is_directory(path, error)) {
    return fail(Errc::usage, escape(path) + " is a directory");
  }
  Contents contents;
  size_t number = 0;
  try {
    for (std::string line; std::getline(file, line);) {
      ++number;
      if (!line.empty()) {
        take(json::parse(line), contents);
      }
    }
    return inputs_of(std::move(contents), path);
  } catch (const std::exception& error) {
    return fail(Errc::unsupported, fmt::format("{}: line {} is not as jemtrace writes it: {}", escape(path),
                                               number, escape(error.what())));
  }
}

/// Of which recordings of a program are advised on, the others are played under their own settings.
Status add_others(std::vector<advise::Input>& inputs, const std::vector<advise::Input>& more,
                  const std::string& path) {
  for (const advise::Input& other : more) {
    bool known = false;
    for (advise::Input& input : inputs) {
      if (input.comm == other.comm) {
        input.others.push_back(other);
        known = true;
      }
    }
    if (!known) {
      return fail(Errc::usage, fmt::format("{} has a recording of {}, of which the first file has none",
                                           escape(path), escape(other.comm)));
    }
  }
  return {};
}

}  // namespace

Result<std::vector<advise::Input>> read_inputs(const std::vector<std::string>& paths) {
  ASSIGN_OR_RETURN(std::vector<advise::Input> inputs, read_one(paths.front()));
  for (size_t i = 1; i < paths.size(); ++i) {
    ASSIGN_OR_RETURN(const std::vector<advise::Input> more, read_one(paths[i]));
    TRY(add_others(inputs, more, paths[i]));
  }
  return inputs;
}

}  // namespace jemtrace::cli
