#include "advise/advice.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "advise/calibrate.hpp"
#include "util/parallel.hpp"
#include "util/text.hpp"

namespace jemtrace::advise {
namespace {

constexpr uint64_t mib = 1 << 20;
constexpr double small_share = 0.05;  // of RSS: less is nothing to gain

double relative(double a, double b) {
  const double larger = std::max(a, b);
  return larger <= 0 ? 0 : std::abs(a - b) / larger;
}

/// `cost_ns` of each page, `ns` in all.
double relative_pages(uint64_t a, const std::optional<uint64_t>& b, double cost_ns, double ns) {
  constexpr double small_cpu = 0.0005;  // of a CPU
  const auto said = static_cast<double>(a);
  const double real = b ? static_cast<double>(*b) : said;
  return std::abs(said - real) * cost_ns < small_cpu * ns ? 0 : relative(said, real);
}

std::string bytes(double amount) {
  return human_bytes(static_cast<uint64_t>(std::max(0.0, amount)));
}

/// A short grid is played more often: what is drawn matters less.
unsigned plays_of(const std::vector<Settings>& grid) {
  constexpr size_t affordable = 48;
  return static_cast<unsigned>(std::clamp<size_t>(affordable / std::max<size_t>(grid.size(), 1), 1, 8));
}

void play(Candidate& candidate, const Input& in, Begin begin, unsigned plays) {
  const auto play_with = [&](double changing_share) {
    Model model = in.model;
    model.changing_share = changing_share;
    return simulate(in.activity, candidate.settings, model, in.costs, begin, plays);
  };
  candidate.outcome = play_with(in.model.changing_share);
  candidate.least_refaulted = candidate.most_refaulted = candidate.outcome.refaulted;
  for (const double share : {in.least_changing, in.most_changing}) {
    if (share != in.model.changing_share) {
      const uint64_t refaulted = play_with(share).refaulted;
      candidate.least_refaulted = std::min(candidate.least_refaulted, refaulted);
      candidate.most_refaulted = std::max(candidate.most_refaulted, refaulted);
    }
  }
}

Fit fit_of(const Input& in) {
  const Outcome out = simulate(in.activity, in.current, in.model, in.costs,
                               in.activity.from_start ? Begin::empty : Begin::as_read, 3);
  Fit fit = {.simulated_resident_bytes = out.mean_resident * static_cast<double>(in.activity.page_bytes),
             .measured_resident_bytes = in.measured.mean_resident_bytes,
             .simulated_purged_pages = out.purged(),
             .measured_purged_pages = in.measured.purged_pages,
             .simulated_refaulted_pages = out.refaulted,
             .measured_refaulted_pages = in.measured.refaulted_pages};
  const double ns = out.seconds * 1e9;
  fit.error = std::max(
      {relative(fit.simulated_resident_bytes, fit.measured_resident_bytes),
       relative_pages(fit.simulated_purged_pages, fit.measured_purged_pages, in.costs.forced_ns, ns),
       relative_pages(fit.simulated_refaulted_pages, fit.measured_refaulted_pages, in.costs.fault_ns, ns)});
  return fit;
}

/// Arenas whose decay times are others count little: they have few readings in which pages move.
void add(Chances& all, const Chances& one) {
  all.tries += one.tries;
  all.tries_ns += one.tries_ns;
  all.came += one.came;
  all.taken += one.taken;
  all.waited_ns += one.waited_ns;
}

double mean_held_bytes(const Activity& activity) {
  double sum = 0;
  const auto totals = activity.totals();
  for (const Point& point : totals) {
    sum += static_cast<double>(point.dirty + point.muzzy);
  }
  return totals.empty() ? 0
                        : sum / static_cast<double>(totals.size()) * static_cast<double>(activity.page_bytes);
}

double mean_active_bytes(const Activity& activity) {
  double sum = 0;
  const auto totals = activity.totals();
  for (const Point& point : totals) {
    sum += static_cast<double>(point.active);
  }
  return totals.empty() ? 0
                        : sum / static_cast<double>(totals.size()) * static_cast<double>(activity.page_bytes);
}

bool nothing_moved(const Activity& activity) {
  return std::all_of(activity.arenas.begin(), activity.arenas.end(),
                     [](const ArenaActivity& arena) { return arena.points.size() <= 1; });
}

/// Why it may be that no decay time is worth a thought.
std::vector<std::string> futile(const Advice& advice) {
  const Input& in = advice.input;
  std::vector<std::string> why;
  const double held = mean_held_bytes(in.activity);
  const double rss = in.measured.mean_rss_bytes;
  const bool little = rss > 0 && held < std::max(small_share * rss, 1.0 * mib);
  if (little) {
    why.push_back(
        fmt::format("dirty and muzzy pages are {} of {} RSS ({:.0f} %): a shorter decay has no more "
                    "than that to give back",
                    bytes(held), bytes(rss), 100 * held / rss));
  }
  const double active = mean_active_bytes(in.activity);
  if (in.measured.mean_allocated_bytes) {
    const double lost = active - *in.measured.mean_allocated_bytes;
    if (rss > 0 && lost > 0.25 * rss) {
      why.push_back(
          fmt::format("{} lie unused inside pages that are in use (fragmentation): decay does not "
                      "reach them",
                      bytes(lost)));
    }
  }
  if (rss > 0 && active + held < 0.5 * rss) {
    why.push_back(fmt::format("{} of {} RSS are not in jemalloc's pages at all", bytes(rss - active - held),
                              bytes(rss)));
  }
  if (nothing_moved(in.activity)) {
    why.push_back(
        held >= mib && !in.current.background
            ? fmt::format(
                  "the process did nothing in this time, and an idle process does not decay: its {} stay "
                  "until it works again, whatever the decay times; background_thread:true or "
                  "arena.<i>.purge give them back",
                  bytes(held))
            : "the process did nothing in this time: watch it while it works");
    return why;
  }
  const auto& current = advice.candidates[advice.current].outcome;
  double least = current.mean_resident;
  double cheapest = current.cost();
  for (const Candidate& candidate : advice.candidates) {
    least = std::min(least, candidate.outcome.mean_resident);
    cheapest = std::min(cheapest, candidate.outcome.cost());
  }
  const double gain = (current.mean_resident - least) * static_cast<double>(in.activity.page_bytes);
  if (!little && gain < std::max(small_share * rss, 1.0 * mib) && current.cost() - cheapest < 0.001) {
    why.push_back(
        fmt::format("no setting that was tried holds more than {} less or saves more than 0.1 % of a CPU",
                    bytes(std::max(gain, 1.0 * mib))));
  }
  return why;
}

ledger::TrendReport trend_of(const Activity& activity) {
  ledger::Series series;
  const auto totals = activity.totals();
  // A series keeps 512 points at even distances: it is to see all of the time.
  const size_t stride = std::max<size_t>(1, totals.size() / 500);
  for (size_t i = 0; i < totals.size(); i += stride) {
    uint64_t highest = 0;  // short batches are not to fall between the points
    for (size_t j = i; j < std::min(i + stride, totals.size()); ++j) {
      highest = std::max(highest, totals[j].active);
    }
    series.add(activity.times_ns[i], highest * activity.page_bytes);
  }
  return series.report();
}

/// Of arenas, by the program itself.
uint64_t own_purges(const Activity& activity) {
  uint64_t purges = 0;
  for (const ArenaActivity& arena : activity.arenas) {
    for (size_t i = 1; i < arena.points.size(); ++i) {
      purges += purged_all(arena, arena.points[i - 1], arena.points[i]) ? 1 : 0;
    }
  }
  return purges;
}

std::optional<Rhythm> rhythm_of(const Advice& advice, const ledger::TrendReport& trend) {
  if (trend.trend != ledger::Trend::rhythmic || !trend.period_s) {
    return std::nullopt;
  }
  Rhythm rhythm{.period_s = *trend.period_s, .low_bytes = trend.low_bytes, .high_bytes = trend.high_bytes};
  if (own_purges(advice.input.activity) > 0) {
    return rhythm;  // what goes back in between does not depend on decay
  }
  const double batches = static_cast<double>(advice.input.activity.span_ns()) / 1e9 / rhythm.period_s;
  const double swing = static_cast<double>(rhythm.high_bytes - rhythm.low_bytes) /
                       static_cast<double>(advice.input.activity.page_bytes) * batches;
  for (const Candidate& candidate : advice.candidates) {
    const Settings& s = candidate.settings;
    const Settings& current = advice.input.current;
    if (s.dirty_ms <= 0 || s.muzzy_ms != 0 || s.background != current.background) {
      continue;
    }
    const double share = static_cast<double>(candidate.outcome.refaulted) / swing;
    if (share >= 0.5) {
      rhythm.gives_back_ms = std::max(rhythm.gives_back_ms.value_or(0), s.dirty_ms);
    } else if (share <= 0.1) {
      rhythm.keeps_ms = std::min(rhythm.keeps_ms.value_or(s.dirty_ms), s.dirty_ms);
    }
  }
  return rhythm;
}

std::vector<Recommendation> recommend(const Advice& advice) {
  std::vector<Price> prices;
  for (const Candidate& candidate : advice.candidates) {
    prices.push_back(price_of(candidate.outcome, advice.input.activity.page_bytes));
  }
  std::vector<Recommendation> out;
  for (const Goal goal : goals) {
    const size_t best = best_for(goal, prices, advice.current);
    const std::string& variable = advice.input.conf_variable;
    out.push_back({.goal = goal,
                   .candidate = best,
                   .keep = best == advice.current,
                   .conf = (variable.empty() ? "MALLOC_CONF" : variable) + "=" +
                           conf_of(advice.candidates[best].settings, advice.input.current)});
  }
  return out;
}

/// What the recordings leave open, where it is more than chance: for the settings in the middle.
void add_open_refaults(Advice& advice) {
  constexpr uint64_t few_pages = 4096;
  constexpr double much = 0.15;
  std::vector<double> fewer;
  std::vector<double> more;
  for (const Candidate& candidate : advice.candidates) {
    if (const uint64_t said = candidate.outcome.refaulted; said >= few_pages) {
      fewer.push_back(1 - static_cast<double>(candidate.least_refaulted) / static_cast<double>(said));
      more.push_back(static_cast<double>(candidate.most_refaulted) / static_cast<double>(said) - 1);
    }
  }
  const auto median = [](std::vector<double>& of) {
    std::sort(of.begin(), of.end());
    return of.empty() ? 0 : of[of.size() / 2];
  };
  const double less = median(fewer);
  const double over = median(more);
  if (std::max(less, over) > much) {
    advice.input.caveats.push_back(fmt::format(
        "how much of its memory is replaced all the time does not follow from what was recorded: pages "
        "touched "
        "again under other settings may as well be {:.0f} % fewer or {:.0f} % more; a recording under a "
        "shorter decay time, given as a second file, or jemtrace sweep tells",
        100 * less, 100 * over));
  }
}

void add_caveats(Advice& advice, const ledger::TrendReport& trend) {
  Input& in = advice.input;
  const double seconds = static_cast<double>(in.activity.span_ns()) / 1e9;
  if (in.current.dirty_ms > 0 && static_cast<double>(in.current.dirty_ms) / 1e3 > seconds) {
    in.caveats.push_back(fmt::format(
        "watched for {:.1f} s, less than the decay time of {:.1f} s: what takes longer was not seen", seconds,
        static_cast<double>(in.current.dirty_ms) / 1e3));
  }
  const uint64_t purges = own_purges(in.activity);
  if (purges > 0) {
    in.caveats.push_back(
        fmt::format("the program purged all of an arena {} by itself (arena.<i>.purge): it is taken to do so "
                    "under all settings",
                    purges == 1 ? "once" : fmt::format("{} times", purges)));
  }
  if (in.model.own_background) {
    in.caveats.emplace_back(
        "the program switched background threads on by itself: background_thread in its options does not "
        "change that");
  }
  add_open_refaults(advice);
  if (trend.trend == ledger::Trend::ratcheting) {
    in.caveats.push_back(
        fmt::format("active memory grows by {}/s: no decay setting stops that", bytes(trend.per_second)));
  }
  if (in.activity.unread > 0) {
    in.caveats.push_back(
        fmt::format("{} readings were left out: an arena could not be read", in.activity.unread));
  }
}

std::optional<uint64_t> oversize_pages(int major, int minor,
                                       const std::map<std::string, ledger::Setting>& options,
                                       uint64_t page_bytes) {
  constexpr uint64_t usual_bytes = uint64_t{8} << 20;
  if (major == 5 && minor < 2) {
    return std::nullopt;
  }
  const auto found = options.find("oversize_threshold");
  const uint64_t bytes =
      found == options.end() ? usual_bytes : std::strtoull(found->second.value.c_str(), nullptr, 10);
  return bytes == 0 ? std::nullopt : std::optional(std::max<uint64_t>(1, bytes / page_bytes));
}

}  // namespace

const char* name(CostSource source) {
  return source == CostSource::measured ? "target" : "host";
}

double purged_extent_pages(const Activity& activity) {
  uint64_t extents = 0;
  uint64_t purged = 0;
  for (const ArenaActivity& arena : activity.arenas) {
    if (arena.dirty_extents && arena.dirty_purged) {
      extents += *arena.dirty_extents;
      purged += *arena.dirty_purged;
    }
  }
  return extents == 0 ? 1
                      : std::clamp(static_cast<double>(purged) / static_cast<double>(extents), 1.0, 4096.0);
}

Model make_model(const Activity& activity, const std::string& version, const Settings& current,
                 const std::map<std::string, ledger::Setting>& options) {
  Model model;
  model.usual = current;
  const auto [major, minor] = major_minor(version);
  const bool since_53 = major > 5 || (major == 5 && minor >= 3);
  model.first_wake_schedules = since_53 || major == 0;
  const bool is_530 = version.rfind("5.3.0", 0) == 0;
  model.background_ends_oversize = since_53 && !is_530;
  if (const auto found = options.find("max_background_threads"); found != options.end()) {
    model.background_threads =
        static_cast<unsigned>(std::clamp(std::atoi(found->second.value.c_str()), 1, 4096));
  }
  model.oversize_pages = oversize_pages(major, minor, options, activity.page_bytes);
  Chances busy;
  Chances idle;
  for (const ArenaActivity& arena : activity.arenas) {
    add(busy, arena.busy);
    add(idle, arena.idle);
  }
  model.busy_chances = busy_rate(busy);
  model.idle_chances = idle_rate(idle);
  return model;
}

void measure_costs(const ledger::Totals& totals, uint64_t page_bytes, Costs& costs, CostOrigins& origins) {
  constexpr uint64_t enough_pages = 256;
  const auto per_page = [&](std::initializer_list<jt_transition> kinds) -> std::optional<double> {
    double ns = 0;
    uint64_t amount = 0;
    for (const jt_transition kind : kinds) {
      const ledger::Histogram total = totals.transitions[kind].total();
      ns += static_cast<double>(total.sum_ns());
      amount += total.bytes();
    }
    return amount / page_bytes < enough_pages
               ? std::nullopt
               : std::optional(ns / (static_cast<double>(amount) / static_cast<double>(page_bytes)));
  };
  if (const auto lazy = per_page({JT_DIRTY_MUZZY})) {
    costs.lazy_ns = *lazy;
    origins.lazy = CostSource::measured;
  }
  if (const auto forced = per_page({JT_DIRTY_RETAINED, JT_MUZZY_RETAINED, JT_UNKNOWN_RETAINED})) {
    costs.forced_ns = *forced;
    origins.forced = CostSource::measured;
  }
}

Advice make_advice(Input input, const std::vector<Settings>& grid) {
  calibrate(input);
  Advice advice{.input = std::move(input),
                .candidates = {},
                .fit = {},
                .recommendations = {},
                .futile = {},
                .rhythm = {}};
  const Input& in = advice.input;
  const Begin begin = in.activity.from_start ? Begin::empty : Begin::settled;
  for (const Settings& settings : grid) {
    if (settings == in.current) {
      advice.current = advice.candidates.size();
    }
    advice.candidates.push_back({.settings = settings});
  }
  in_parallel(grid.size(), few_threads(),
              [&](size_t i) { play(advice.candidates[i], in, begin, plays_of(grid)); });
  mark_front(advice.candidates);
  advice.fit = fit_of(in);
  advice.futile = futile(advice);
  const ledger::TrendReport trend = trend_of(in.activity);
  advice.rhythm = rhythm_of(advice, trend);
  if (!nothing_moved(in.activity)) {
    advice.recommendations = recommend(advice);
  }
  add_caveats(advice, trend);
  return advice;
}

}  // namespace jemtrace::advise
