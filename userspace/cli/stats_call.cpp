#include "cli/stats_call.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "cli/run.hpp"
#include "read/call/reading.hpp"
#include "sample/memory.hpp"
#include "util/say.hpp"
#include "util/text.hpp"

namespace jemtrace::cli {
namespace {

std::optional<uint64_t> rss_of(pid_t pid) {
  const auto memory = sample::memory_now(ProcRoot(), pid);
  return memory ? std::optional(memory->rss_bytes) : std::nullopt;
}

std::string value_text(const read::NewSetting& setting, const std::optional<int64_t>& value) {
  if (!value) {
    return "unknown";
  }
  return setting.per_arena() ? std::to_string(*value) : *value != 0 ? "true" : "false";
}

/// The changes of one setting that went the same way are one line.
void describe_setting(const read::NewSetting& setting, const std::vector<read::Change>& changes,
                      std::vector<std::string>& lines) {
  std::vector<const read::Change*> rest;
  for (const read::Change& change : changes) {
    if (change.name.ends_with(setting.name)) {
      rest.push_back(&change);
    }
  }
  while (!rest.empty()) {
    const read::Change first = *rest.front();
    const auto same = std::stable_partition(rest.begin(), rest.end(), [&](const read::Change* other) {
      return other->before != first.before || other->after != first.after || other->error != first.error;
    });
    const auto count = rest.end() - same;
    std::string which = count == 1 ? first.name : fmt::format("{} and {} more", first.name, count - 1);
    std::string line = fmt::format("{}: {} -> {}", which, value_text(setting, first.before),
                                   value_text(setting, first.after));
    if (first.error != 0) {
      line += fmt::format(" (refused: {})", fail_errno("mallctl", first.error).value().message());
    } else if (!first.confirmed()) {
      line += " (not what was asked for)";
    }
    lines.push_back(std::move(line));
    rest.erase(same, rest.end());
  }
}

std::string or_unknown(const std::optional<uint64_t>& bytes) {
  return bytes ? human_bytes(*bytes) : "unknown";
}

}  // namespace

Result<std::unique_ptr<Callee>> Callee::open(pid_t pid) {
  const ProcRoot proc;
  auto callee = std::make_unique<Callee>();
  ASSIGN_OR_RETURN(callee->placed_, collect::inspect_placed(proc, pid));
  std::vector<read::MappedImage> images;
  for (const collect::PlacedImage& placed : callee->placed_.images) {
    images.push_back({&placed.named.image, placed.bias, placed.named.path});
  }
  const read::CallLimits limits{.slow = [pid] {
    say("the call in pid {} waits for a mutex of jemalloc's; it cannot be broken off without "
        "harm, so signals are held until it is done",
        pid);
  }};
  ASSIGN_OR_RETURN(callee->caller_, read::Caller::open(proc, pid, std::move(images), limits));
  return callee;
}

Result<Actions> act(Callee& callee, const CallOptions& options) {
  Actions actions;
  for (const read::NewSetting& setting : options.sets) {
    ASSIGN_OR_RETURN(const auto changes, read::set(callee.caller(), setting, options.arena));
    actions.changes.insert(actions.changes.end(), changes.begin(), changes.end());
  }
  if (options.purge || options.decay) {
    actions.rss_before = rss_of(callee.process().pid);
    if (options.decay) {
      TRY(read::decay(callee.caller(), options.arena));
      actions.decayed = true;
    }
    if (options.purge) {
      TRY(read::purge(callee.caller(), options.arena));
      actions.purged = true;
    }
    actions.rss_after = rss_of(callee.process().pid);
  }
  return actions;
}

std::vector<std::string> describe(const Actions& actions, const CallOptions& options) {
  std::vector<std::string> lines;
  for (const read::NewSetting& setting : options.sets) {
    describe_setting(setting, actions.changes, lines);
  }
  if (actions.purged || actions.decayed) {
    lines.push_back(fmt::format("{} {}: RSS {} -> {}", actions.purged ? "purge" : "decay",
                                options.arena ? fmt::format("of arena {}", *options.arena) : "of all arenas",
                                or_unknown(actions.rss_before), or_unknown(actions.rss_after)));
  }
  return lines;
}

std::string describe_pause(const read::Caller& caller) {
  return fmt::format("a thread was stopped {} times, for {} at most", caller.stops(),
                     human_ns(static_cast<uint64_t>(caller.longest_pause().count())));
}

Result<ledger::Reading> read_by_call(Callee& callee, const CallOptions& options) {
  return read::call(callee.caller(), {.epoch = options.epoch, .classes = options.classes});
}

Result<int> stats_by_call(const Options& options) {
  const ProcRoot proc;
  ASSIGN_OR_RETURN(const auto callee, Callee::open(options.selection.pids.front()));
  ASSIGN_OR_RETURN(const std::unique_ptr<Results> results, Results::open(options, true));
  ASSIGN_OR_RETURN(const Actions actions, act(*callee, options.call));
  // What was changed is for people: data are the values that are read after it.
  for (const std::string& line : describe(actions, options.call)) {
    if (options.format == Format::text) {
      results->print(line + "\n");
    } else {
      say("{}", line);
    }
  }
  ASSIGN_OR_RETURN(auto found, collect::inspect(proc, options.selection));
  if (found.processes.empty()) {
    return fail(Errc::gone, fmt::format("pid {} has ended", options.selection.pids.front()));
  }
  collect::Inspected& process = found.processes.front();
  // What the process says of itself completes what its memory shows: that alone has the ranges.
  ASSIGN_OR_RETURN(const ledger::Reading called, read_by_call(*callee, options.call));
  process.read = [structures = process.read, &called](bool with_ranges) -> Result<ledger::Reading> {
    auto reading = structures(with_ranges);
    if (!reading) {
      return called;
    }
    reading->complete_from(called);
    return reading;
  };
  ASSIGN_OR_RETURN(render::StatsReport report, report_on(proc, process));
  report.arenas = options.arenas;
  report.classes = options.call.classes;
  results->out().stats(report);
  TRY(results->finish());
  say("{}", describe_pause(callee->caller()));
  const bool done = std::all_of(actions.changes.begin(), actions.changes.end(),
                                [](const read::Change& change) { return change.confirmed(); });
  return done ? exit_status::ok : exit_status::failure;
}

}  // namespace jemtrace::cli
