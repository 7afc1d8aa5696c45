#include <fmt/format.h>
#include <poll.h>

#include <algorithm>
#include <array>
#include <map>
#include <memory>
#include <optional>

#include "cli/run.hpp"
#include "cli/signals.hpp"
#include "cli/stats_call.hpp"
#include "collect/facts.hpp"
#include "collect/flush.hpp"
#include "collect/inspect.hpp"
#include "collect/tracer.hpp"
#include "explain/explain.hpp"
#include "util/clock.hpp"
#include "util/say.hpp"
#include "util/text.hpp"

namespace jemtrace::cli {
namespace {

using collect::Target;
using collect::Tracer;
using ledger::Maybe;

constexpr auto default_window = std::chrono::seconds(30);
constexpr uint64_t second_ns = 1'000'000'000;

/// One look at a process, with what surrounds it.
struct Seen {
  explain::Moment moment;
  collect::Look look;
  collect::Facts facts;
};

void take_account(const ledger::Account& account, explain::Moment& moment) {
  moment.rss = account.rss_bytes;
  moment.lazyfree = account.lazyfree_bytes;
  moment.anon_huge = account.anon_huge_bytes;
  moment.allocated = account.allocated_bytes;
  moment.active = account.active.bytes;
  moment.dirty = account.dirty.bytes;
  moment.muzzy = account.muzzy.bytes;
  moment.retained = account.retained.bytes;
  moment.retained_resident = account.retained.resident_bytes;
  moment.uncertain = account.uncertain_bytes;
  moment.muzzy_gone = account.muzzy_not_resident_bytes;
  if (account.active.bytes) {
    moment.other_heap = account.part(ledger::Part::other_heap);  // else jemalloc's is in it, too
  }
}

explain::Moment moment_of(const collect::Look& look, const collect::Facts& facts) {
  explain::Moment moment;
  moment.at_ns = monotonic_ns();
  take_account(ledger::make_account(look.seen), moment);
  moment.locked = facts.locked_bytes;
  moment.vmas = look.seen.vmas.size();
  uint64_t shared = 0;
  for (const ledger::Vma& vma : look.seen.vmas) {
    shared += vma.kind == ledger::Vma::Kind::anonymous ? vma.shared_bytes : 0;
  }
  moment.shared_anonymous = shared;
  moment.cgroup = look.cgroup;
  moment.host = look.host;
  return moment;
}

/// What was known last of a process that has ended: its costly numbers are those of the beginning.
explain::Moment last_moment(const Target& target, const explain::Moment& start) {
  explain::Moment moment = start;
  const auto value = [](const Maybe<ledger::Sampled>& sampled) {
    return sampled ? Maybe<uint64_t>(sampled->value) : std::nullopt;
  };
  moment.rss = value(target.last_sample.rss_bytes);
  moment.lazyfree = value(target.last_sample.lazyfree_bytes);
  moment.active = target.states.active_bytes;
  moment.dirty = target.states.dirty_bytes;
  moment.muzzy = target.states.muzzy_bytes;
  moment.retained = target.states.retained_bytes;
  moment.allocated = target.states.allocated_bytes;
  return moment;
}

std::vector<explain::Arena> arenas_of(const collect::Look& look) {
  std::vector<explain::Arena> out;
  if (!look.seen.before) {
    return out;
  }
  const ledger::Reading& reading = *look.seen.before;
  for (const ledger::ArenaReading& arena : reading.arenas) {
    explain::Arena one{
        .index = arena.index, .dirty = {}, .dirty_decay_ms = arena.dirty_decay.time_ms, .idle_ns = {}};
    if (arena.dirty.pages) {
      one.dirty = *arena.dirty.pages * look.seen.page_bytes;
    }
    if (arena.dirty_decay.epoch_ns && reading.at_ns >= *arena.dirty_decay.epoch_ns) {
      one.idle_ns = reading.at_ns - *arena.dirty_decay.epoch_ns;
    }
    out.push_back(one);
  }
  return out;
}

class Diagnosis {
 public:
  Diagnosis(const Options& options, Results& results) : options_(options), results_(results) {}
  Result<int> run();

 private:
  Status start();
  Status watch(Signals& signals);
  [[nodiscard]] bool over(uint64_t now) const;
  void look_at_new_targets();
  Result<Seen> look(const Target& target, const collect::ReadJemalloc& read) const;
  void look_last(const Target& target);
  explain::Inputs inputs_of(const Target& target, const ledger::Summary& summary) const;
  void conclude(const Target& target);
  void note_kill(const ledger::OomKill& kill);

  const Options& options_;
  Results& results_;
  ProcRoot proc_;
  std::unique_ptr<Tracer> tracer_;
  uint64_t window_ns_ = 0, began_ns_ = 0;
  size_t targets_seen_ = 0;
  std::map<uint64_t, Seen> first_, last_;  // by born_ns
  std::vector<ledger::OomKill> kills_;     // newest first
  Maybe<double> baseline_ns_per_page_;
};

Result<Seen> Diagnosis::look(const Target& target, const collect::ReadJemalloc& read) const {
  ASSIGN_OR_RETURN(collect::Look look, collect::look_at(proc_, target.process.pid, read));
  collect::Facts facts = collect::read_facts(proc_, target.process.pid);
  explain::Moment moment = moment_of(look, facts);
  return Seen{std::move(moment), std::move(look), std::move(facts)};
}

void Diagnosis::look_at_new_targets() {
  for (const Target* target : tracer_->live()) {
    if (!first_.contains(target->id.born_ns)) {
      if (auto seen = look(*target, target->read)) {
        first_.emplace(target->id.born_ns, std::move(*seen));
      }
    }
  }
}

/// With --mallctl=call jemalloc itself says how much is allocated. That it cannot is no failure: the rule
/// that needs it says so.
void Diagnosis::look_last(const Target& target) {
  collect::ReadJemalloc read = target.read;
  Maybe<ledger::Reading> called;
  if (options_.diagnose.call) {
    auto opened = Callee::open(target.process.pid);
    auto reading = opened ? read_by_call(**opened, {.wanted = true, .epoch = true})
                          : Result<ledger::Reading>(tl::unexpected(opened.error()));
    if (reading) {
      called = std::move(*reading);
      read = [structures = target.read, &called](bool with_ranges) -> Result<ledger::Reading> {
        auto own = structures ? structures(with_ranges) : Result<ledger::Reading>(*called);
        if (!own) {
          return *called;
        }
        own->complete_from(*called);
        return own;
      };
      say("{}", describe_pause((*opened)->caller()));
    } else {
      say("mallctl could not be called: {}", reading.error().message());
    }
  }
  if (auto seen = look(target, read)) {
    last_.emplace(target.id.born_ns, std::move(*seen));
  }
}

void Diagnosis::note_kill(const ledger::OomKill& kill) {
  const auto same =
      std::find_if(kills_.begin(), kills_.end(), [&](const auto& one) { return one.pid == kill.pid; });
  if (same == kills_.end()) {
    kills_.insert(kills_.begin(), kill);
    return;
  }
  // The event came first; the log has the numbers.
  same->anon_rss_bytes = kill.anon_rss_bytes ? kill.anon_rss_bytes : same->anon_rss_bytes;
  same->file_rss_bytes = kill.file_rss_bytes ? kill.file_rss_bytes : same->file_rss_bytes;
  same->comm = same->comm.empty() ? kill.comm : same->comm;
}

explain::Inputs Diagnosis::inputs_of(const Target& target, const ledger::Summary& summary) const {
  explain::Inputs in;
  explain::describe(summary.target, in);
  in.window_ns = summary.window_ns;
  in.now_ns = target.ended_ns;
  in.exited = summary.exited;
  in.work = summary.totals;
  in.refaults = summary.refaults;
  in.collapses = summary.collapses;
  in.waits = tracer_->waits(target);
  in.baseline_ns_per_page = baseline_ns_per_page_;
  in.ooms = kills_;
  const auto first = first_.find(target.id.born_ns);
  const auto last = last_.find(target.id.born_ns);
  if (first != first_.end()) {
    in.start = first->second.moment;
  }
  if (last == last_.end()) {
    in.end = last_moment(target, in.start);
  } else {
    in.end = last->second.moment;
    in.arenas = arenas_of(last->second.look);
  }
  const Seen* seen = last != last_.end() ? &last->second : first != first_.end() ? &first->second : nullptr;
  if (seen == nullptr) {
    return in;
  }
  in.page_bytes = seen->look.seen.page_bytes;
  if (seen->look.seen.before) {
    in.boot_options = seen->look.seen.before->options;
  }
  const collect::Facts& facts = seen->facts;
  in.background_threads = facts.background_threads;
  in.cpus = facts.cpus.value_or(0);
  in.cpu_quota = facts.cpu_quota;
  in.max_map_count = facts.max_map_count;
  if (facts.asked_for) {
    in.requests.emplace();
    for (const collect::AskedFor& asked : *facts.asked_for) {
      in.requests->push_back({asked.variable, asked.options});
    }
  }
  if (facts.children) {
    in.children.emplace();
    for (const collect::ForkedChild& child : *facts.children) {
      in.children->push_back({child.pid, child.rss_bytes});
    }
  }
  return in;
}

render::PurgeCost cost_of(const explain::Inputs& in) {
  const explain::PurgeWork work = explain::purge_work(*in.work);
  render::PurgeCost cost{.calls = work.calls,
                         .bytes = work.bytes,
                         .time_ns = work.ns,
                         .max_ns = work.max_ns,
                         .app_calls = work.app_calls,
                         .app_time_ns = work.app_ns,
                         .app_p99_ns = work.app_p99_ns,
                         .oversize_calls = work.oversize_calls,
                         .oversize_time_ns = work.oversize_ns,
                         .waits = in.waits,
                         .ns_per_page = {},
                         .baseline_ns_per_page = in.baseline_ns_per_page,
                         .touched_again = {}};
  if (const uint64_t pages = work.bytes / in.page_bytes; pages > 0) {
    cost.ns_per_page = static_cast<double>(work.ns) / static_cast<double>(pages);
  }
  if (in.refaults) {
    cost.touched_again = in.refaults->share(in.refaults->within_10s);
  }
  return cost;
}

void Diagnosis::conclude(const Target& target) {
  const ledger::Summary summary = tracer_->summary(target);
  const explain::Inputs in = inputs_of(target, summary);
  explain::Evaluation evaluation = explain::evaluate(in);
  render::DiagnosisReport report{.target = summary.target,
                                 .window_ns = summary.window_ns,
                                 .exited = summary.exited,
                                 .findings = std::move(evaluation.findings),
                                 .unmeasured = {},
                                 .purging = cost_of(in),
                                 .lazily_taken_bytes = explain::lazily_taken(in),
                                 .memory = {}};
  for (explain::Unmeasured& one : evaluation.unmeasured) {
    report.unmeasured.emplace_back(std::move(one.id), std::move(one.because));
  }
  if (const auto last = last_.find(target.id.born_ns); last != last_.end()) {
    collect::Look& look = last->second.look;
    report.memory = render::StatsReport{.target = summary.target, .account = ledger::make_account(look.seen)};
    report.memory->page_bytes = look.seen.page_bytes;
    report.memory->reading = look.seen.before;
    report.memory->unread_because = look.unread_because;
    report.memory->cgroup = look.cgroup;
    report.memory->host = look.host;
    report.memory->sampling_ns = look.sampling_ns;
  }
  results_.out().diagnosis(report);
}

Status Diagnosis::start() {
  Tracer::Listener listener{.on_target =
                                [this](Target& target) {
                                  ++targets_seen_;
                                  if (options_.format == Format::json) {
                                    results_.out().target(target.info);
                                  }
                                },
                            .on_end =
                                [this](Target& target) {
                                  if (options_.diagnose.since_oom || !kills_.empty()) {
                                    if (auto kill = collect::last_oom_kill();
                                        kill && *kill && (*kill)->pid == target.process.pid) {
                                      note_kill(**kill);
                                    }
                                  }
                                  conclude(target);
                                },
                            .on_call = {},
                            .on_oom = [this](const ledger::OomKill& kill) { note_kill(kill); }};
  results_.out().header(make_header(options_));
  baseline_ns_per_page_ = collect::measure_purge_ns_per_page();
  ASSIGN_OR_RETURN(tracer_,
                   Tracer::start({.selection = options_.selection, .context = true}, std::move(listener)));
  began_ns_ = monotonic_ns();
  look_at_new_targets();
  if (tracer_->unreadable() > 0) {
    say("{}", collect::describe_unreadable(tracer_->unreadable()));
  }
  if (targets_seen_ == 0) {
    say("nothing selected uses jemalloc yet; waiting for it (Ctrl-C ends)");
  }
  return {};
}

bool Diagnosis::over(uint64_t now) const {
  return !results_.wanted() || now - began_ns_ >= window_ns_ ||
         (options_.selection.only_pids() && tracer_->live().empty());
}

Status Diagnosis::watch(Signals& signals) {
  uint64_t sampled_ns = monotonic_ns();
  for (uint64_t now = sampled_ns; !over(now); now = monotonic_ns()) {
    const uint64_t wake_ns = std::min(began_ns_ + window_ns_, sampled_ns + second_ns);
    const int timeout_ms = wake_ns <= now ? 0 : static_cast<int>((wake_ns - now) / 1'000'000 + 1);
    std::array<pollfd, 2> fds{{{.fd = tracer_->wait_fd(), .events = POLLIN, .revents = 0},
                               {.fd = signals.fd(), .events = POLLIN, .revents = 0}}};
    ::poll(fds.data(), fds.size(), timeout_ms);
    TRY(tracer_->poll());
    if (signals.take()) {
      return {};
    }
    look_at_new_targets();
    if (monotonic_ns() >= sampled_ns + second_ns) {
      sampled_ns = monotonic_ns();
      for (Target* target : tracer_->live()) {
        tracer_->sample(*target, tracer_->totals(*target));
      }
    }
  }
  return {};
}

Result<int> Diagnosis::run() {
  Signals signals;
  window_ns_ =
      static_cast<uint64_t>(std::chrono::nanoseconds(options_.duration.value_or(default_window)).count());
  if (options_.diagnose.since_oom) {
    if (auto kill = collect::last_oom_kill(); !kill) {
      say("the kernel's log cannot be read: {}", kill.error().message());
    } else if (*kill) {
      note_kill(**kill);
    }
  }
  TRY(start());
  TRY(watch(signals));
  TRY(tracer_->poll());
  for (const Target* target : tracer_->live()) {
    look_last(*target);
  }
  tracer_->stop();
  for (const Target* target : tracer_->live()) {
    conclude(*target);
  }
  TRY(results_.finish());
  if (targets_seen_ == 0) {
    return fail(Errc::no_target, "nothing selected uses jemalloc",
                "jemtrace list shows the processes that do");
  }
  return exit_status::ok;
}

Result<int> flush(const Options& options) {
  const ProcRoot proc;
  ASSIGN_OR_RETURN(const auto found, collect::inspect(proc, options.selection));
  if (found.processes.empty()) {
    return tl::unexpected(found.nothing());
  }
  const collect::Inspected& process = found.processes.front();
  ASSIGN_OR_RETURN(const collect::Flushed done,
                   collect::flush_lazyfree(proc, process.info.pid, process.read));
  ASSIGN_OR_RETURN(const std::unique_ptr<Results> results, Results::open(options, false));
  results->out().flush({.pid = process.info.pid,
                        .comm = process.info.comm,
                        .lazyfree_before_bytes = done.lazyfree_before,
                        .lazyfree_after_bytes = done.lazyfree_after,
                        .rss_before_bytes = done.rss_before,
                        .rss_after_bytes = done.rss_after,
                        .advised_bytes = done.advised,
                        .ranges = done.ranges,
                        .took_ns = done.took_ns});
  TRY(results->finish());
  return exit_status::ok;
}

}  // namespace

Result<int> diagnose(const Options& options) {
  if (options.diagnose.flush_lazyfree) {
    return flush(options);
  }
  ASSIGN_OR_RETURN(const std::unique_ptr<Results> results, Results::open(options, true));
  return Diagnosis(options, *results).run();
}

}  // namespace jemtrace::cli
