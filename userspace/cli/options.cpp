#include "cli/options.hpp"

#include <fmt/format.h>
#include <pwd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <charconv>
#include <cstring>

#include "cli/examples.hpp"
#include "util/text.hpp"

namespace jemtrace::cli {
namespace {

constexpr const char* description =
    "jemtrace shows, for every process that uses jemalloc, which memory goes back to the kernel, when, why, "
    "what it "
    "costs and who pays. It changes nothing in the process and needs no restart.";

/// As the user typed them; checked once parsing is done.
struct Raw {
  std::vector<std::string> pids, names, cgroups, users;
  std::string duration, interval, format = "text", output, image;
  bool events = false, no_refaults = false, passive = false, strict = false, verbose = false, schema = false,
       rebuild = false, arenas = false;
  RawCall call;
  RawDiagnose diagnose;
  MergeOptions merge;
  RawServe serve;
  AdviseOptions advise;
};

void add_selection(CLI::App& app, Raw& raw) {
  app.add_option("-p,--pid", raw.pids, "these processes; a list with commas, or repeated")
      ->delimiter(',')
      ->type_name("PID");
  app.add_option("-n,--name", raw.names, "processes by name of thread group or program file; a shell pattern")
      ->type_name("GLOB")
      ->take_all();
  app.add_option("--cgroup", raw.cgroups, "processes in this cgroup or below")->type_name("PATH")->take_all();
  app.add_option("--user", raw.users, "processes of this user")->type_name("NAME")->take_all();
}

void add_format(CLI::App& app, Raw& raw) {
  app.add_option("-f,--format", raw.format, "text, or json: one object a line")
      ->check(CLI::IsMember({"text", "json"}))
      ->capture_default_str();
  app.add_option("-o,--output", raw.output, "write to this file instead of standard output")
      ->type_name("FILE");
}

Result<pid_t> to_pid(const std::string& text) {
  pid_t pid = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), pid);
  if (error != std::errc{} || end != text.data() + text.size() || pid <= 0) {
    return fail(Errc::usage, fmt::format("'{}' is not a pid", escape(text)));
  }
  return pid;
}

Result<uid_t> to_uid(const std::string& text) {
  if (const passwd* user = ::getpwnam(text.c_str())) {
    return user->pw_uid;
  }
  uid_t uid = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), uid);
  if (error != std::errc{} || end != text.data() + text.size()) {
    return fail(Errc::usage, fmt::format("no user is named '{}'", escape(text)));
  }
  return uid;
}

/// A cgroup as people paste it: "/sys/fs/cgroup/a/b" is "/a/b".
std::string strip_mount(std::string path) {
  for (const std::string_view mount : {"/sys/fs/cgroup/memory", "/sys/fs/cgroup/unified", "/sys/fs/cgroup"}) {
    if (path.compare(0, mount.size(), mount) == 0) {
      path.erase(0, mount.size());
      break;
    }
  }
  return path.empty() || path.front() != '/' ? "/" + path : path;
}

Status fill_selection(const Raw& raw, discover::Selection& selection) {
  for (const std::string& pid : raw.pids) {
    ASSIGN_OR_RETURN(const pid_t value, to_pid(pid));
    selection.pids.push_back(value);
  }
  for (const std::string& user : raw.users) {
    ASSIGN_OR_RETURN(const uid_t value, to_uid(user));
    selection.users.push_back(value);
  }
  selection.name_globs = raw.names;
  std::transform(raw.cgroups.begin(), raw.cgroups.end(), std::back_inserter(selection.cgroups), strip_mount);
  return {};
}

/// What stands before a subcommand and has no meaning there would be ignored without a word.
Status check_place(const CLI::App& app) {
  const std::vector<CLI::App*> verbs = app.get_subcommands();
  for (const CLI::Option* option : verbs.empty() ? std::vector<const CLI::Option*>() : app.get_options()) {
    const std::string name = option->get_name(false, true);
    if (option->count() > 0 && !option->get_lnames().empty() &&
        verbs.front()->get_option_no_throw("--" + option->get_lnames().front()) == nullptr) {
      return fail(Errc::usage, fmt::format("{} has no option {}", verbs.front()->get_name(), name),
                  fmt::format("jemtrace {} --help lists its options", verbs.front()->get_name()));
    }
  }
  return {};
}

Result<Options> check(const Raw& raw, Verb verb, std::vector<std::string> command) {
  Options options;
  options.verb = raw.schema ? Verb::json_schema : verb;
  options.command = std::move(command);
  options.format = raw.format == "json" ? Format::json : Format::text;
  options.output = raw.output;
  options.events = raw.events;
  options.refaults = !raw.no_refaults;
  options.passive = raw.passive;
  options.strict = raw.strict;
  options.verbose = raw.verbose;
  options.image = raw.image;
  options.rebuild = raw.rebuild;
  options.arenas = raw.arenas;
  options.merge = raw.merge;
  TRY(fill_selection(raw, options.selection));
  ASSIGN_OR_RETURN(options.call, check_call(raw.call));
  if ((options.call.wanted || verb == Verb::prof) &&
      (!options.selection.only_pids() || options.selection.pids.size() != 1)) {
    return fail(Errc::usage, "mallctl is called in one process, named with -p PID");
  }
  if (verb == Verb::prof) {
    ASSIGN_OR_RETURN(options.prof, check_prof(raw.call));
  }
  if (verb == Verb::diagnose) {
    ASSIGN_OR_RETURN(options.diagnose, check_diagnose(raw.diagnose, options.selection));
  }
  if (verb == Verb::serve) {
    ASSIGN_OR_RETURN(options.serve, check_serve(raw.serve));
    options.interval = std::chrono::seconds(10);
  }
  if (!raw.duration.empty()) {
    ASSIGN_OR_RETURN(options.duration, parse_duration(raw.duration));
  }
  if (!raw.interval.empty()) {
    ASSIGN_OR_RETURN(options.interval, parse_duration(raw.interval));
  }
  if (!options.command.empty() && !options.selection.everything()) {
    return fail(Errc::usage, "a command behind -- and a selection of processes exclude each other");
  }
  if (!options.command.empty() && verb != Verb::trace && verb != Verb::sweep) {
    return fail(Errc::usage, "only tracing and sweep can start a command");
  }
  if (options.command.empty() && verb == Verb::sweep) {
    return fail(Errc::usage, "sweep needs a command to run: jemtrace sweep -- CMD");
  }
  options.advise = raw.advise;
  TRY(check_advise(options.advise, !options.selection.everything(), options.format == Format::json));
  return options;
}

}  // namespace

Parsed parse(int argc, const char* const* argv) {
  // All behind the first "--" is the command, untouched.
  const auto* const end = argv + argc;
  const auto* const dashes =
      std::find_if(argv, end, [](const char* arg) { return std::strcmp(arg, "--") == 0; });
  std::vector<std::string> command(dashes == end ? end : dashes + 1, end);

  Raw raw;
  CLI::App app(description, "jemtrace");
  app.footer(help_footer(""));
  app.set_version_flag("-V,--version", "jemtrace " JEMTRACE_VERSION);
  add_selection(app, raw);
  add_format(app, raw);
  app.add_option("-d,--duration", raw.duration, "stop after this time (500ms, 30s, 2m)")->type_name("DUR");
  app.add_option("-i,--interval", raw.interval, "time between two lines [1s]")->type_name("DUR");
  app.add_flag("--events", raw.events, "print every transition and sweep, not only their sums");
  app.add_flag("--passive", raw.passive, "also see what programs ask their own jemalloc (mallctl)");
  app.add_flag("--no-refaults", raw.no_refaults, "do not look at page faults: what comes back is not known");
  app.add_flag("--strict", raw.strict, "exit status 4 if something was lost or a wanted role has no site");
  app.add_flag("-v,--verbose", raw.verbose, "say on standard error what is done and how long it takes");
  app.add_flag("--json-schema", raw.schema, "print the schema of the NDJSON output");

  CLI::App* list =
      app.add_subcommand("list", "who uses jemalloc: version, linkage, tier, settings, RSS; traces nothing");
  add_selection(*list, raw);
  add_format(*list, raw);
  CLI::App* image =
      app.add_subcommand("image", "one image: version, tier, every role with its site and cost");
  image->add_option("image", raw.image, "an ELF file, or the pid of a process")
      ->required()
      ->type_name("FILE|PID");
  image->add_flag("--rebuild", raw.rebuild, "look at the file again, even if the cache knows it");
  add_format(*image, raw);
  CLI::App* stats = app.add_subcommand(
      "stats", "where the memory of a process is now: the account of states that sums to RSS");
  add_selection(*stats, raw);
  add_format(*stats, raw);
  stats->add_flag("--arenas", raw.arenas, "one more line for each arena");
  add_call_options(*stats, raw.call);
  CLI::App* prof = app.add_subcommand("prof", "jemalloc's heap profiler in a process: dump, on, off");
  add_selection(*prof, raw);
  add_prof_options(*prof, raw.call);
  CLI::App* diagnose = app.add_subcommand(
      "diagnose", "what is wrong with a process's memory, on what evidence, and what to set");
  add_selection(*diagnose, raw);
  add_format(*diagnose, raw);
  diagnose->add_option("-d,--duration", raw.duration, "watch for this long [30s]")->type_name("DUR");
  add_diagnose_options(*diagnose, raw.diagnose);
  CLI::App* merge = app.add_subcommand("merge", "add up the histograms and counters of many runs and hosts");
  add_merge_options(*merge, raw.merge);
  add_format(*merge, raw);
  CLI::App* serve = app.add_subcommand("serve", "metrics for Prometheus and OpenTelemetry");
  add_selection(*serve, raw);
  serve->add_option("-i,--interval", raw.interval, "time between two samples of a process [10s]")
      ->type_name("DUR");
  serve->add_flag("--no-refaults", raw.no_refaults,
                  "do not look at page faults: what comes back is not known");
  add_serve_options(*serve, raw.serve);
  CLI::App* advise = app.add_subcommand(
      "advise", "what other decay settings would hold and cost: a simulation over what a process does");
  add_selection(*advise, raw);
  add_format(*advise, raw);
  advise->add_option("-d,--duration", raw.duration, "watch for this time [30s]")->type_name("DUR");
  add_advise_options(*advise, raw.advise);
  CLI::App* sweep = app.add_subcommand(
      "sweep", "run a command (behind --) under several settings, measured beside predicted");
  add_format(*sweep, raw);
  sweep->add_option("-d,--duration", raw.duration, "end each run after this time")->type_name("DUR");
  add_sweep_options(*sweep, raw.advise);
  CLI::App* host =
      app.add_subcommand("check", "what this host allows, and what to do about what it does not");
  add_format(*host, raw);
  host->add_flag("-v,--verbose", raw.verbose, "print what the kernel said");
  for (CLI::App* verb : app.get_subcommands({})) {
    verb->footer(help_footer(verb->get_name()));
  }
  app.require_subcommand(0, 1);

  try {
    app.parse(static_cast<int>(dashes - argv), argv);
  } catch (const CLI::Success& success) {
    std::ostringstream out;
    app.exit(success, out, out);
    return {.options = {}, .text = out.str(), .exit_status = 0};
  } catch (const CLI::ParseError& error) {
    return {.options = {},
            .text = fmt::format("jemtrace: {}\nhint: jemtrace --help lists the options\n", error.what()),
            .exit_status = 2};
  }
  Verb verb = Verb::trace;
  if (list->parsed()) {
    verb = Verb::list;
  } else if (image->parsed()) {
    verb = Verb::image;
  } else if (stats->parsed()) {
    verb = Verb::stats;
  } else if (prof->parsed()) {
    verb = Verb::prof;
  } else if (diagnose->parsed()) {
    verb = Verb::diagnose;
  } else if (merge->parsed()) {
    verb = Verb::merge;
  } else if (serve->parsed()) {
    verb = Verb::serve;
  } else if (advise->parsed()) {
    verb = Verb::advise;
  } else if (sweep->parsed()) {
    verb = Verb::sweep;
  } else if (host->parsed()) {
    verb = Verb::check;
  }
  auto options = check_place(app).and_then([&] { return check(raw, verb, std::move(command)); });
  if (!options) {
    const Error& error = options.error();
    return {.options = {},
            .text = fmt::format("jemtrace: {}\nhint: {}\n", error.message(),
                                error.hint.empty() ? "jemtrace --help lists the options" : error.hint),
            .exit_status = 2};
  }
  if (dashes != end && options->command.empty()) {
    return {.options = {}, .text = "jemtrace: no command behind --\n", .exit_status = 2};
  }
  return {.options = std::move(*options), .text = {}, .exit_status = 0};
}

}  // namespace jemtrace::cli
