#include <fmt/format.h>

#include <algorithm>

#include "advise/advice.hpp"
#include "cli/advise_file.hpp"
#include "cli/run.hpp"
#include "cli/watch.hpp"
#include "util/say.hpp"

namespace jemtrace::cli {
namespace {

Result<advise::Advice> advise_on(advise::Input input, const Options& options) {
  std::vector<advise::Settings> grid = advise::default_grid(input.current);
  if (input.model.own_background) {
    std::erase_if(grid, [&](const auto& one) { return one.background != input.current.background; });
  }
  if (!options.advise.grid.empty()) {
    ASSIGN_OR_RETURN(grid, advise::parse_grid(options.advise.grid, input.current));
  }
  return advise::make_advice(std::move(input), grid);
}

Status print(advise::Input input, const Options& options, Results& results) {
  if (options.advise.series) {
    results.out().series(input);
  }
  ASSIGN_OR_RETURN(const advise::Advice advice, advise_on(std::move(input), options));
  results.out().advice(advice);
  return {};
}

/// 30 s see three lives of a page with the usual 10 s of decay.
constexpr std::chrono::milliseconds usual_time{30'000};

Result<int> advise_live(const Options& options) {
  ASSIGN_OR_RETURN(const std::unique_ptr<Results> results, Results::open(options, true));
  results->out().header(make_header(options));
  const auto duration = options.duration.value_or(usual_time);
  if (options.format == Format::text) {
    say("watching for {:.0f} s (-d says how long; Ctrl-C ends it earlier)",
        static_cast<double>(duration.count()) / 1e3);
  }
  ASSIGN_OR_RETURN(
      const WatchResult watched,
      watch({.selection = options.selection, .command = {}, .environment = {}, .duration = duration}));
  if (watched.processes.empty()) {
    return fail(Errc::no_target, "nothing selected uses jemalloc",
                "jemtrace list shows the processes that do");
  }
  const bool only_one = options.selection.only_pids() && options.selection.pids.size() == 1;
  size_t printed = 0;
  for (const Watched& process : watched.processes) {
    auto input = make_input(process);
    if (!input) {
      if (only_one) {
        return tl::unexpected(std::move(input).error());
      }
      say("{}", input.error().message());
      continue;
    }
    results->out().target(process.info);
    TRY(print(std::move(*input), options, *results));
    ++printed;
  }
  TRY(results->finish());
  return printed > 0 ? exit_status::ok : exit_status::failure;
}

Result<int> advise_file(const Options& options) {
  ASSIGN_OR_RETURN(std::vector<advise::Input> inputs, read_inputs(options.advise.files));
  ASSIGN_OR_RETURN(const std::unique_ptr<Results> results, Results::open(options, true));
  results->out().header(make_header(options));
  for (advise::Input& input : inputs) {
    TRY(print(std::move(input), options, *results));
  }
  TRY(results->finish());
  return exit_status::ok;
}

}  // namespace

Result<int> advise_settings(const Options& options) {
  return options.advise.files.empty() ? advise_live(options) : advise_file(options);
}

}  // namespace jemtrace::cli
