#include "cli/diagnose_options.hpp"

namespace jemtrace::cli {

void add_diagnose_options(CLI::App& app, RawDiagnose& raw) {
  app.add_option("--mallctl", raw.mallctl,
                 "call: also ask jemalloc how much is allocated; a thread of the process is stopped for some "
                 "milliseconds and made to call mallctl, epoch included")
      ->check(CLI::IsMember({"call"}))
      ->type_name("call");
  app.add_flag("--since-oom", raw.since_oom,
               "also look into the kernel's log for the last kill for want of memory");
  app.add_flag("--flush-lazyfree", raw.flush_lazyfree,
               "diagnose nothing: have the kernel take back now what the process freed lazily");
}

Result<DiagnoseOptions> check_diagnose(const RawDiagnose& raw, const discover::Selection& selection) {
  const bool one = selection.only_pids() && selection.pids.size() == 1;
  if ((raw.flush_lazyfree || !raw.mallctl.empty()) && !one) {
    return fail(Errc::usage, raw.flush_lazyfree ? "--flush-lazyfree acts on one process, named with -p PID"
                                                : "mallctl is called in one process, named with -p PID");
  }
  return DiagnoseOptions{
      .call = !raw.mallctl.empty(), .since_oom = raw.since_oom, .flush_lazyfree = raw.flush_lazyfree};
}

}  // namespace jemtrace::cli
