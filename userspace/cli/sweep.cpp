#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <set>

#include "advise/advice.hpp"
#include "advise/calibrate.hpp"
#include "cli/run.hpp"
#include "cli/watch.hpp"
#include "util/parallel.hpp"
#include "util/say.hpp"
#include "util/text.hpp"

namespace jemtrace::cli {
namespace {

using advise::Settings;
using advise::Trial;

/// Sums of the runs of one setting.
struct Sum {
  unsigned runs = 0;
  advise::Measured measured;
  double wall_s = 0, cpu_s = 0, least_rss = 0, most_rss = 0;
  uint64_t least_refaulted = 0, most_refaulted = 0;
  unsigned purged_known = 0, refaulted_known = 0;
  int exit_status = 0;
};

class Sweep {
 public:
  explicit Sweep(const Options& options) : options_(options) {}

  Result<int> run() {
    ASSIGN_OR_RETURN(const std::unique_ptr<Results> results, Results::open(options_, false));
    results->out().header(make_header(options_));
    TRY(run_as_is());
    ASSIGN_OR_RETURN(grid_, grid());
    TRY(run_shorter());
    if (options_.advise.series) {
      results->out().series(*input_);
    }
    advise::calibrate(*input_);
    sums_.resize(grid_.size());
    for (unsigned round = 0; round < options_.advise.repeat && !interrupted_; ++round) {
      // Each round in another order: what a run leaves behind in the machine is no one setting's share.
      for (size_t i = 0; i < grid_.size() && !interrupted_; ++i) {
        const size_t which = (i + round) % grid_.size();
        TRY(run_with(which, round));
      }
    }
    results->out().trials(report_of());
    TRY(results->finish());
    const auto failed =
        std::find_if(sums_.begin(), sums_.end(), [](const Sum& s) { return s.exit_status != 0; });
    return interrupted_ ? 130 : failed == sums_.end() ? exit_status::ok : failed->exit_status;
  }

 private:
  /// Largest first: a command may be a shell that starts the program.
  static const Watched* main_process(const WatchResult& result) {
    const auto largest = std::max_element(result.processes.begin(), result.processes.end(),
                                          [](const Watched& a, const Watched& b) {
                                            return a.measured.max_rss_bytes < b.measured.max_rss_bytes;
                                          });
    return largest == result.processes.end() ? nullptr : &*largest;
  }

  /// The first run: it shows what the command does, by what the others are predicted, and is not compared, as
  /// files are read into the cache by it.
  Status run_as_is() {
    say("run as it is");
    ASSIGN_OR_RETURN(const WatchResult result, watch({.selection = {},
                                                      .command = options_.command,
                                                      .environment = {},
                                                      .duration = options_.duration}));
    if (result.interrupted) {
      return fail(Errc::gone, "interrupted before there was anything to compare");
    }
    const Watched* const process = main_process(result);
    if (process == nullptr) {
      return fail(Errc::no_target, "the command does not use jemalloc",
                  "it must not leave its process group, and run until jemalloc has started");
    }
    info_ = process->info;
    ASSIGN_OR_RETURN(input_, make_input(*process));
    elsewhere_bytes_ = process->measured.mean_rss_bytes - process->measured.mean_resident_bytes;
    variable_ = !options_.advise.conf_var.empty() ? options_.advise.conf_var : input_->conf_variable;
    if (!options_.advise.conf_var.empty() && variable_ != input_->conf_variable) {
      caveats_.push_back(fmt::format("its jemalloc reads {}, not {}", input_->conf_variable, variable_));
    }
    if (result.processes.size() > 1) {
      caveats_.push_back(
          fmt::format("{} processes used jemalloc: the numbers are of the largest, CPU is of all",
                      result.processes.size()));
    }
    return {};
  }

  Result<std::vector<Settings>> grid() const {
    if (!options_.advise.grid.empty()) {
      return advise::parse_grid(options_.advise.grid, input_->current);
    }
    std::vector<Settings> grid = {input_->current, {10'000, 0, false},    {1'000, 0, false},
                                  {100, 0, false}, {1'000, 1'000, false}, {1'000, 0, true},
                                  {-1, 0, false}};
    std::vector<Settings> unique;
    for (const Settings& one : grid) {
      if (std::find(unique.begin(), unique.end(), one) == unique.end()) {
        unique.push_back(one);
      }
    }
    return unique;
  }

  /// A run that is not compared either. What memory does under a short decay time does not follow from a long
  /// one: this is one between the two shortest that are predicted.
  Status run_shorter() {
    std::set<int64_t> times;
    for (const Settings& settings : grid_) {
      times.insert(settings.dirty_ms);
    }
    times.insert(input_->current.dirty_ms);
    const auto shortest = times.upper_bound(0);
    if (shortest == times.end() || std::next(shortest) == times.end()) {
      return {};
    }
    Settings settings{.background = input_->current.background};
    settings.dirty_ms =
        std::llround(std::sqrt(static_cast<double>(*shortest) * static_cast<double>(*std::next(shortest))));
    say("run to predict from: {}", advise::conf_of(settings, std::nullopt));
    ASSIGN_OR_RETURN(const WatchResult result, run_under(settings));
    if (const Watched* const process = main_process(result); process != nullptr && !interrupted_) {
      ASSIGN_OR_RETURN(advise::Input other, make_input(*process));
      input_->others.push_back(std::move(other));
    }
    return {};
  }

  Result<WatchResult> run_under(const Settings& settings) {
    ASSIGN_OR_RETURN(WatchResult result, watch({.selection = {},
                                                .command = options_.command,
                                                .environment = {{variable_, value_of(settings)}},
                                                .duration = options_.duration}));
    interrupted_ = result.interrupted;
    return result;
  }

  [[nodiscard]] std::string value_of(const Settings& settings) const {
    // The command's own settings stay: later ones win.
    const char* own = std::getenv(variable_.c_str());
    return (own != nullptr && *own != '\0' ? std::string(own) + "," : "") +
           advise::conf_of(settings, std::nullopt);
  }

  Status run_with(size_t which, unsigned round) {
    const std::string conf = advise::conf_of(grid_[which], std::nullopt);
    say("round {} of {}: {}", round + 1, options_.advise.repeat, conf);
    ASSIGN_OR_RETURN(const WatchResult result, run_under(grid_[which]));
    const Watched* const process = main_process(result);
    if (interrupted_ || process == nullptr) {
      return {};
    }
    add(sums_[which], *process, result);
    return {};
  }

  static void add(Sum& sum, const Watched& process, const WatchResult& result) {
    const advise::Measured& one = process.measured;
    advise::Measured& all = sum.measured;
    sum.least_rss = sum.runs == 0 ? one.mean_rss_bytes : std::min(sum.least_rss, one.mean_rss_bytes);
    sum.most_rss = std::max(sum.most_rss, one.mean_rss_bytes);
    sum.runs += 1;
    sum.wall_s += result.wall_s;
    sum.cpu_s += result.cpu_s;
    sum.exit_status = result.exit_status.value_or(0) != 0 ? *result.exit_status : sum.exit_status;
    all.seconds += one.seconds;
    all.mean_rss_bytes += one.mean_rss_bytes;
    all.max_rss_bytes = std::max(all.max_rss_bytes, one.max_rss_bytes);
    all.mean_resident_bytes += one.mean_resident_bytes;
    all.app_purge_ns += one.app_purge_ns;
    all.background_purge_ns += one.background_purge_ns;
    if (one.purged_pages) {
      all.purged_pages = all.purged_pages.value_or(0) + *one.purged_pages;
      sum.purged_known += 1;
    }
    if (one.refaulted_pages) {
      all.refaulted_pages = all.refaulted_pages.value_or(0) + *one.refaulted_pages;
      sum.least_refaulted = sum.refaulted_known == 0 ? *one.refaulted_pages
                                                     : std::min(sum.least_refaulted, *one.refaulted_pages);
      sum.most_refaulted = std::max(sum.most_refaulted, *one.refaulted_pages);
      sum.refaulted_known += 1;
    }
  }

  [[nodiscard]] Trial trial_of(size_t which) const {
    const Sum& sum = sums_[which];
    Trial trial{.settings = grid_[which],
                .conf = variable_ + "=" + advise::conf_of(grid_[which], std::nullopt),
                .runs = sum.runs,
                .exit_status = sum.exit_status};
    if (sum.runs > 0) {
      const double runs = sum.runs;
      trial.measured = sum.measured;
      trial.measured.seconds /= runs;
      trial.measured.mean_rss_bytes /= runs;
      trial.measured.mean_resident_bytes /= runs;
      trial.measured.app_purge_ns /= runs;
      trial.measured.background_purge_ns /= runs;
      if (trial.measured.purged_pages) {
        *trial.measured.purged_pages /= std::max(1U, sum.purged_known);
      }
      if (trial.measured.refaulted_pages) {
        *trial.measured.refaulted_pages /= std::max(1U, sum.refaulted_known);
        if (sum.refaulted_known == sum.runs) {
          trial.refaulted_spread = static_cast<double>(sum.most_refaulted - sum.least_refaulted) /
                                   std::max(1.0, static_cast<double>(*trial.measured.refaulted_pages));
        }
      }
      trial.wall_s = sum.wall_s / runs;
      trial.cpu_s = sum.cpu_s / runs;
      trial.rss_spread = (sum.most_rss - sum.least_rss) / std::max(1.0, trial.measured.mean_rss_bytes);
    }
    return trial;
  }

  void predict(Trial& trial) const {
    constexpr unsigned plays = 8;
    const advise::Input& in = *input_;
    trial.predicted =
        advise::simulate(in.activity, trial.settings, in.model, in.costs, advise::Begin::empty, plays);
    trial.predicted_rss_bytes =
        trial.predicted->mean_resident * static_cast<double>(in.activity.page_bytes) + elsewhere_bytes_;
  }

  [[nodiscard]] advise::SweepReport report_of() const {
    advise::SweepReport report{.comm = info_.comm,
                               .conf_variable = variable_,
                               .page_bytes = input_->activity.page_bytes,
                               .trials = {},
                               .caveats = caveats_};
    for (size_t i = 0; i < grid_.size(); ++i) {
      report.trials.push_back(trial_of(i));
    }
    in_parallel(grid_.size(), few_threads(), [&](size_t i) { predict(report.trials[i]); });
    return report;
  }

  const Options& options_;
  std::optional<advise::Input> input_;
  ledger::TargetInfo info_;
  double elsewhere_bytes_ = 0;  // of RSS, not in jemalloc's pages
  std::string variable_;
  std::vector<Settings> grid_;
  std::vector<Sum> sums_;
  std::vector<std::string> caveats_;
  bool interrupted_ = false;
};

}  // namespace

Result<int> sweep(const Options& options) {
  return Sweep(options).run();
}

}  // namespace jemtrace::cli
