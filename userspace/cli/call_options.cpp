#include "cli/call_options.hpp"

#include <algorithm>

namespace jemtrace::cli {

void add_call_options(CLI::App& app, RawCall& raw) {
  app.add_option("--mallctl", raw.mallctl,
                 "call: have a thread of the process call mallctl; it is stopped for some milliseconds")
      ->check(CLI::IsMember({"call"}))
      ->type_name("call");
  app.add_flag("--epoch", raw.epoch,
               "have jemalloc count anew first; it takes nearly all its mutexes in turn");
  app.add_flag("--classes", raw.classes, "one line for each size class that holds much");
  app.add_flag("--purge", raw.purge, "have it give back all dirty and muzzy pages (arena.<i>.purge)");
  app.add_flag("--decay", raw.decay, "have it give back what is due (arena.<i>.decay)");
  app.add_option("--set", raw.sets, "change dirty_decay_ms, muzzy_decay_ms or background_thread")
      ->type_name("NAME=VALUE")
      ->take_all();
  app.add_option("--arena", raw.arena, "--purge, --decay and --set for this one only")->type_name("N");
}

void add_prof_options(CLI::App& app, RawCall& raw) {
  app.add_option("--dump", raw.dump, "have the process write its heap profile to this absolute path")
      ->type_name("FILE");
  app.add_flag("--activate", raw.activate, "sample allocations from now on (prof.active)");
  app.add_flag("--deactivate", raw.deactivate, "sample no more");
  app.add_option("--recent", raw.recent, "write the latest sampled allocations to this file, as JSON")
      ->type_name("FILE");
}

Result<CallOptions> check_call(const RawCall& raw) {
  CallOptions options{.wanted = !raw.mallctl.empty(),
                      .epoch = raw.epoch,
                      .purge = raw.purge,
                      .decay = raw.decay,
                      .classes = raw.classes,
                      .sets = {},
                      .arena = raw.arena};
  for (const std::string& text : raw.sets) {
    ASSIGN_OR_RETURN(read::NewSetting setting, read::parse_setting(text));
    options.sets.push_back(std::move(setting));
  }
  const bool acts = options.purge || options.decay || !options.sets.empty();
  if (!options.wanted && (acts || options.epoch)) {
    return fail(Errc::usage, "--epoch, --purge, --decay and --set need --mallctl=call",
                "a thread of the process is stopped and made to call mallctl: that has to be said");
  }
  const bool one_arena = std::any_of(options.sets.begin(), options.sets.end(),
                                     [](const auto& setting) { return setting.per_arena(); });
  if (options.arena && !one_arena && !options.purge && !options.decay) {
    return fail(Errc::usage, "--arena belongs to --purge, --decay or --set of a decay time");
  }
  return options;
}

Result<ProfOptions> check_prof(const RawCall& raw) {
  const int asked = static_cast<int>(!raw.dump.empty()) + static_cast<int>(!raw.recent.empty()) +
                    static_cast<int>(raw.activate) + static_cast<int>(raw.deactivate);
  if (asked != 1) {
    return fail(Errc::usage, "prof wants one of --dump, --recent, --activate and --deactivate");
  }
  if (!raw.dump.empty() && raw.dump.front() != '/') {
    return fail(Errc::usage, "--dump wants an absolute path",
                "the process writes the file, and has a working directory of its own");
  }
  return ProfOptions{raw.dump, raw.recent, raw.activate, raw.deactivate};
}

}  // namespace jemtrace::cli
