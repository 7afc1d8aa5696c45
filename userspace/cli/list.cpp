#include <algorithm>

#include "cli/run.hpp"
#include "collect/inspect.hpp"
#include "sample/memory.hpp"
#include "util/say.hpp"

namespace jemtrace::cli {

Result<int> list(const Options& options) {
  const ProcRoot proc;
  ASSIGN_OR_RETURN(const auto found, collect::inspect(proc, options.selection));
  std::vector<render::ListRow> rows;
  for (const collect::Inspected& process : found.processes) {
    render::ListRow row{.target = process.info};
    // Asked for once and by hand: the costly read is worth it here.
    if (const auto memory = sample::memory_now(proc, process.info.pid)) {
      row.sample.rss_bytes = ledger::Sampled{memory->rss_bytes, "statm", 0};
      if (memory->lazyfree_bytes) {
        row.sample.lazyfree_bytes = ledger::Sampled{*memory->lazyfree_bytes, "smaps_rollup", 0};
      }
    }
    rows.push_back(std::move(row));
  }
  for (const std::string& note : found.notes) {
    say("{}", note);
  }
  if (rows.empty() && found.unreadable > 0) {
    return tl::unexpected(found.nothing());
  }
  ASSIGN_OR_RETURN(const std::unique_ptr<Results> results, Results::open(options, true));
  results->out().list(rows);
  TRY(results->finish());
  if (rows.empty()) {
    return tl::unexpected(found.nothing());
  }
  return exit_status::ok;
}

}  // namespace jemtrace::cli
