#include "cli/run.hpp"
#include "cli/stats_call.hpp"
#include "collect/inspect.hpp"
#include "collect/observe.hpp"
#include "util/say.hpp"

namespace jemtrace::cli {

Result<render::StatsReport> report_on(const ProcRoot& proc, const collect::Inspected& process) {
  ASSIGN_OR_RETURN(collect::Look look, collect::look_at(proc, process.info.pid, process.read));
  render::StatsReport report{.target = process.info, .account = ledger::make_account(look.seen)};
  report.page_bytes = look.seen.page_bytes;
  report.unread_because = std::move(look.unread_because);
  report.reading = std::move(look.seen.before);
  report.cgroup = std::move(look.cgroup);
  report.host = std::move(look.host);
  report.sampling_ns = look.sampling_ns;
  return report;
}

Result<int> stats(const Options& options) {
  const ProcRoot proc;
  if (options.call.wanted) {
    return stats_by_call(options);
  }
  ASSIGN_OR_RETURN(const auto found, collect::inspect(proc, options.selection));
  for (const std::string& note : found.notes) {
    say("{}", note);
  }
  ASSIGN_OR_RETURN(const std::unique_ptr<Results> results, Results::open(options, true));
  size_t printed = 0;
  for (const collect::Inspected& process : found.processes) {
    auto made = report_on(proc, process);
    if (!made) {
      // One that was asked for is an error; among others it may come and go.
      if (options.selection.only_pids()) {
        return tl::unexpected(std::move(made).error());
      }
      continue;
    }
    made->arenas = options.arenas;
    made->classes = options.call.classes;
    results->out().stats(*made);
    ++printed;
  }
  TRY(results->finish());
  if (printed == 0) {
    return tl::unexpected(found.nothing());
  }
  return exit_status::ok;
}

}  // namespace jemtrace::cli
