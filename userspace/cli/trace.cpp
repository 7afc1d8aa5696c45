#include <fmt/format.h>
#include <poll.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <map>
#include <optional>

#include "cli/run.hpp"
#include "cli/signals.hpp"
#include "collect/inspect.hpp"
#include "collect/launch.hpp"
#include "collect/tracer.hpp"
#include "ledger/ranges.hpp"
#include "util/clock.hpp"
#include "util/say.hpp"
#include "util/text.hpp"

namespace jemtrace::cli {
namespace {

using collect::Launch;
using collect::Target;
using collect::Tracer;

uint64_t to_ns(const timeval& time) {
  return static_cast<uint64_t>(time.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(time.tv_usec) * 1000;
}

/// vm.overcommit_memory 2: jemalloc then gives pages back by mmap(PROT_NONE).
bool overcommit_is_never() {
  const auto text = read_file("/proc/sys/vm/overcommit_memory", 16);
  return text && text->front() == '2';
}

/// What a sweep's calls add up to, until its thread begins another.
struct OpenSweep {
  uint32_t number = 0;
  ledger::SweepEvent sum;
  uint64_t born_ns = 0;
};

/// Purges were refused, or are not known as such.
bool has_doubts(const jt_counters& counters) {
  return counters.failed_errno_inval + counters.failed_errno_other > 0 ||
         counters.by_purpose[JT_HPA].calls + counters.by_purpose[JT_UNCLASSIFIED].calls +
                 counters.by_purpose[JT_PURGE_UNPROVEN].calls >
             0;
}

/// Whether any page went back to the kernel.
bool gave_back(const ledger::Totals& totals) {
  return std::any_of(totals.transitions.begin(), totals.transitions.end(),
                     [](const auto& transition) { return transition.total().extents() > 0; });
}

class Trace {
 public:
  Trace(const Options& options, Results& results, bool only_busy)
      : options_(options), results_(results), only_busy_(only_busy) {}

  Result<int> run();

 private:
  Status start();
  Status loop(Signals& signals);
  void wait_for_command();
  [[nodiscard]] bool over(uint64_t now) const;
  void print_intervals(uint64_t now);
  void print_call(const Target& target, const jt_call_event& event);
  void close_sweep(OpenSweep& sweep);
  static void resolve_source(ledger::TransitionEvent& event, ledger::Ranges& ranges);
  void print_summary(const Target& target);
  [[nodiscard]] int status() const;

  const Options& options_;
  Results& results_;
  bool only_busy_;  // text for many targets: those that do nothing get no lines, and no summary unless named
  std::unique_ptr<Tracer> tracer_;
  std::optional<Launch> launch_;
  std::optional<int> launch_status_;
  uint64_t began_ns_ = 0;
  uint64_t last_interval_ns_ = 0;
  std::map<uint64_t, ledger::Totals> at_last_interval_;  // by born_ns
  std::map<uint32_t, OpenSweep> sweeps_;                 // by tid
  std::map<uint64_t, ledger::Ranges> ranges_;            // by born_ns; with --events
  size_t targets_seen_ = 0;
  size_t quiet_targets_ = 0;  // that got no summary
  bool incomplete_ = false;
};

void Trace::close_sweep(OpenSweep& sweep) {
  if (sweep.number != 0) {
    results_.out().sweep(sweep.sum);
  }
  sweep.number = 0;
}

/// Where no probe says which cache a range came from, its own history does, as far as it goes.
void Trace::resolve_source(ledger::TransitionEvent& event, ledger::Ranges& ranges) {
  jt_call_event& call = event.raw;
  if (call.ret != 0) {
    return;  // the kernel refused: nothing moved
  }
  const bool unmapped = call.transition == JT_UNKNOWN_RETURNED;
  if (call.transition == JT_UNKNOWN_RETAINED || unmapped) {
    if (ranges.state_of(call.addr, call.len) == JT_STATE_MUZZY) {
      call.from = JT_STATE_MUZZY;
      call.transition = unmapped ? JT_MUZZY_RETURNED : JT_MUZZY_RETAINED;
      event.from_history = true;
    }
  }
  switch (call.transition) {
    case JT_DIRTY_MUZZY:
      ranges.enter(call.addr, call.len, JT_STATE_MUZZY);
      break;
    case JT_DIRTY_RETAINED:
    case JT_MUZZY_RETAINED:
    case JT_UNKNOWN_RETAINED:
      ranges.enter(call.addr, call.len, JT_STATE_RETAINED);
      break;
    default:
      ranges.forget(call.addr, call.len);
  }
}

void Trace::print_call(const Target& target, const jt_call_event& event) {
  if (event.sweep != 0) {
    OpenSweep& open = sweeps_[event.h.tid];
    if (open.number != event.sweep || open.born_ns != event.h.id.born_ns) {
      close_sweep(open);
      open.number = event.sweep;
      open.born_ns = event.h.id.born_ns;
      open.sum = {.ts_ns = event.h.ts_ns,
                  .pid = target.process.pid,
                  .tid = static_cast<pid_t>(event.h.tid),
                  .comm = std::string(event.h.comm, ::strnlen(event.h.comm, sizeof event.h.comm)),
                  .state = static_cast<jt_state>(event.from),
                  .cause = static_cast<jt_cause>(event.cause)};
      if (event.arena != JT_NO_ARENA) {
        open.sum.arena = event.arena;
      }
    }
    open.sum.latency_ns = event.h.ts_ns + event.latency_ns - open.sum.ts_ns;
    open.sum.extents += 1;
    open.sum.bytes += event.len;
  }
  ledger::TransitionEvent transition{event};
  resolve_source(transition, ranges_[event.h.id.born_ns]);
  results_.out().transition(transition);
}

void Trace::print_intervals(uint64_t now) {
  std::map<uint64_t, ledger::Totals> all = tracer_->totals_of_live();
  for (Target* target : tracer_->live()) {
    const ledger::Totals& totals = all[target->id.born_ns];
    tracer_->sample(*target, totals);
    ledger::Totals& before = at_last_interval_[target->id.born_ns];
    ledger::Interval interval{.pid = target->process.pid,
                              .comm = target->process.comm,
                              .unix_ns = unix_ns(),
                              .window_ns = now - std::max(last_interval_ns_, target->began_ns),
                              .sample = target->last_sample,
                              .states = target->states};
    interval.delta = totals.since(before);
    before = totals;
    if (!only_busy_ || gave_back(interval.delta)) {
      results_.out().interval(interval);
    }
  }
  last_interval_ns_ = now;
}

void Trace::print_summary(const Target& target) {
  ledger::Summary summary = tracer_->summary(target);
  rusage usage{};
  ::getrusage(RUSAGE_SELF, &usage);
  summary.cost.cpu_ns = to_ns(usage.ru_utime) + to_ns(usage.ru_stime);
  summary.cost.max_rss_bytes = static_cast<uint64_t>(usage.ru_maxrss) * 1024;
  if (launch_ && target.process.pid != launch_->pid()) {
    summary.caveats.emplace_back("a descendant of the command");
  }
  summary.decommit = overcommit_is_never();
  if (summary.decommit && !tracer_->times_mmap()) {
    summary.caveats.emplace_back(
        "vm.overcommit_memory became 2 while tracing: purges by mmap are counted, not timed");
  }
  incomplete_ |= !summary.exact;
  if (only_busy_ && !options_.selection.only_pids() && !gave_back(summary.totals) &&
      !has_doubts(summary.totals.counters) && (summary.exact || !options_.strict)) {
    ++quiet_targets_;
    return;
  }
  results_.out().summary(summary);
}

Status Trace::start() {
  collect::TracerOptions tracing{.selection = options_.selection,
                                 .every_event = options_.events,
                                 .refaults = options_.refaults,
                                 .passive = options_.passive,
                                 .time_mmap = options_.events || overcommit_is_never()};
  if (!options_.command.empty()) {
    ASSIGN_OR_RETURN(launch_, Launch::prepare(options_.command));
    tracing.launch = launch_->pid();
  }
  Tracer::Listener listener{
      .on_target =
          [this](Target& target) {
            ++targets_seen_;
            results_.out().target(target.info);
          },
      .on_end =
          [this](Target& target) {
            at_last_interval_.erase(target.id.born_ns);
            ranges_.erase(target.id.born_ns);
            print_summary(target);
          },
      .on_call = [this](Target& target, const jt_call_event& event) { print_call(target, event); }};
  results_.out().header(make_header(options_));
  ASSIGN_OR_RETURN(tracer_, Tracer::start(std::move(tracing), std::move(listener)));
  began_ns_ = last_interval_ns_ = monotonic_ns();
  if (options_.verbose) {
    const auto& timings = tracer_->timings();
    tell(fmt::format("load: {:.1f} ms\nattach: {:.1f} ms\nscan: {:.1f} ms\n", timings.load_ns / 1e6,
                     timings.attach_ns / 1e6, timings.scan_ns / 1e6));
  }
  if (launch_) {
    TRY(launch_->go());
  } else if (tracer_->unreadable() > 0) {
    say("{}", collect::describe_unreadable(tracer_->unreadable()));
  }
  if (!launch_ && targets_seen_ == 0) {
    say("nothing selected uses jemalloc yet; waiting for it (Ctrl-C ends)");
  }
  return {};
}

bool Trace::over(uint64_t now) const {
  if (!results_.wanted() || launch_status_) {
    return true;
  }
  if (options_.duration &&
      now - began_ns_ >= static_cast<uint64_t>(std::chrono::nanoseconds(*options_.duration).count())) {
    return true;
  }
  return !launch_ && options_.selection.only_pids() && tracer_->live().empty();
}

Status Trace::loop(Signals& signals) {
  const auto interval_ns = static_cast<uint64_t>(std::chrono::nanoseconds(options_.interval).count());
  for (;;) {
    const uint64_t now = monotonic_ns();
    if (over(now)) {
      return {};
    }
    uint64_t wake_ns = std::min(last_interval_ns_ + interval_ns, now + Tracer::check_every_ns);
    if (options_.duration) {
      wake_ns = std::min(
          wake_ns, began_ns_ + static_cast<uint64_t>(std::chrono::nanoseconds(*options_.duration).count()));
    }
    const int timeout_ms = wake_ns <= now ? 0 : static_cast<int>((wake_ns - now) / 1'000'000 + 1);
    std::array<pollfd, 3> fds{{{.fd = tracer_->wait_fd(), .events = POLLIN, .revents = 0},
                               {.fd = signals.fd(), .events = POLLIN, .revents = 0},
                               {.fd = launch_ ? launch_->pidfd() : -1, .events = POLLIN, .revents = 0}}};
    ::poll(fds.data(), fds.size(), timeout_ms);
    TRY(tracer_->poll());
    if (signals.take()) {
      wait_for_command();
      return {};
    }
    if (monotonic_ns() >= last_interval_ns_ + interval_ns) {
      print_intervals(monotonic_ns());
    }
    if (launch_) {
      launch_status_ = launch_->exit_status();
    }
  }
}

/// Ctrl-C reaches the command, too: what it does on its way out belongs into the summary. One that stays is
/// left alone.
void Trace::wait_for_command() {
  constexpr int patience_ms = 1000;
  if (launch_ && !launch_status_) {
    pollfd ended{.fd = launch_->pidfd(), .events = POLLIN, .revents = 0};
    ::poll(&ended, 1, patience_ms);
    launch_status_ = launch_->exit_status();
  }
}

int Trace::status() const {
  if (launch_status_.value_or(exit_status::ok) != exit_status::ok) {
    return *launch_status_;
  }
  if (targets_seen_ == 0 && !launch_) {
    return exit_status::no_target;
  }
  return options_.strict && incomplete_ ? exit_status::incomplete : exit_status::ok;
}

Result<int> Trace::run() {
  Signals signals;
  TRY(start());
  TRY(loop(signals));
  // The command's own end comes before the tracer's, so that its last purges are in.
  TRY(tracer_->poll());
  tracer_->stop();  // some may still end in it: those are told by then
  for (auto& [tid, sweep] : sweeps_) {
    close_sweep(sweep);
  }
  for (const Target* target : tracer_->live()) {
    print_summary(*target);
  }
  if (quiet_targets_ > 0) {
    results_.print(plural(quiet_targets_, "process", "processes") +
                   " that gave nothing back: no summary (-p PID shows it)\n");
  }
  TRY(results_.finish());
  tracer_->wait_until_detached();
  if (options_.verbose) {
    tell(fmt::format("stop: {:.1f} ms\ndetach: {:.1f} ms\n", tracer_->timings().stop_ns / 1e6,
                     tracer_->timings().detach_ns / 1e6));
  }
  if (launch_ && !launch_status_) {
    say("{} (pid {}) goes on, untraced: its exit status is not known", escape(options_.command.front()),
        launch_->pid());
  }
  if (targets_seen_ == 0) {
    for (const std::string& why : tracer_->refused()) {  // no summary that could name them
      say("{}", why);
    }
    say("nothing selected uses jemalloc\nhint: jemtrace list shows the processes that do");
  }
  return status();
}

}  // namespace

Result<int> trace(const Options& options) {
  const bool several =
      options.command.empty() && !(options.selection.only_pids() && options.selection.pids.size() == 1);
  ASSIGN_OR_RETURN(const std::unique_ptr<Results> results, Results::open(options, several));
  return Trace(options, *results, several && options.format == Format::text).run();
}

}  // namespace jemtrace::cli
