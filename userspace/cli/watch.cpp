#include "cli/watch.hpp"

#include <fmt/format.h>
#include <poll.h>
#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <charconv>

#include "cli/signals.hpp"
#include "collect/launch.hpp"
#include "collect/tracer.hpp"
#include "sample/memory.hpp"
#include "sample/page_costs.hpp"
#include "util/clock.hpp"
#include "util/text.hpp"

namespace jemtrace::cli {
namespace {

using collect::Launch;
using collect::Target;
using collect::Tracer;

constexpr uint64_t least_period_ns = 10'000'000, most_period_ns = 1'000'000'000;
constexpr uint64_t cost_to_period =
    50;  // reading takes at most 2 % of one CPU, for as long as it is asked to

double seconds_of(const timeval& time) {
  return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec) / 1e6;
}

double cpu_of_children() {
  rusage usage{};
  ::getrusage(RUSAGE_CHILDREN, &usage);
  return seconds_of(usage.ru_utime) + seconds_of(usage.ru_stime);
}

/// A quantity over time.
class Mean {
 public:
  void add(uint64_t at_ns, double value) {
    if (last_ns_ != 0) {
      sum_ += (value + last_) / 2 * static_cast<double>(at_ns - last_ns_);
      span_ += static_cast<double>(at_ns - last_ns_);
    }
    last_ = value;
    last_ns_ = at_ns;
  }
  [[nodiscard]] bool empty() const { return last_ns_ == 0; }
  [[nodiscard]] double value() const { return span_ > 0 ? sum_ / span_ : last_; }

 private:
  double sum_ = 0, span_ = 0, last_ = 0;
  uint64_t last_ns_ = 0;
};

struct Watching {
  size_t number = 0;  // in the result
  advise::Recorder recorder{static_cast<uint64_t>(::sysconf(_SC_PAGESIZE))};
  Mean rss, allocated;
  uint64_t max_rss = 0;
  bool allocated_known = true;
};

class Watch {
 public:
  explicit Watch(const WatchOptions& options) : options_(options) {}

  Result<WatchResult> run() {
    Signals signals;
    TRY(start());
    TRY(loop(signals));
    TRY(end_command());
    TRY(tracer_->poll());
    tracer_->stop();
    for (const Target* target : tracer_->live()) {
      finish(*target);
    }
    result_.wall_s = static_cast<double>(monotonic_ns() - began_ns_) / 1e9;
    result_.cpu_s = cpu_of_children() - cpu_before_;
    return std::move(result_);
  }

 private:
  Status start() {
    collect::TracerOptions tracing{.selection = options_.selection};
    if (!options_.command.empty()) {
      ASSIGN_OR_RETURN(launch_, Launch::prepare(options_.command, options_.environment));
      tracing.launch = launch_->pid();
    }
    Tracer::Listener listener{.on_target = [this](Target& target) { begin(target); },
                              .on_end = [this](Target& target) { finish(target); },
                              .on_call = {}};
    ASSIGN_OR_RETURN(tracer_, Tracer::start(std::move(tracing), std::move(listener)));
    cpu_before_ = cpu_of_children();
    began_ns_ = monotonic_ns();
    if (launch_) {
      TRY(launch_->go());
    }
    return {};
  }

  void begin(const Target& target) {
    Watching& watching = watching_[target.id.born_ns];
    watching.number = result_.processes.size();
    result_.processes.push_back(
        {.info = target.info, .summary = {}, .activity = {}, .measured = {}, .unread_because = {}});
  }

  void read(Target& target) {
    const auto found = watching_.find(target.id.born_ns);
    if (found == watching_.end() || !target.read) {
      return;
    }
    Watching& watching = found->second;
    Watched& process = result_.processes[watching.number];
    if (const auto rss = sample::read_rss(ProcRoot(), target.process.pid); rss && *rss > 0) {
      watching.rss.add(monotonic_ns(), static_cast<double>(*rss));
      watching.max_rss = std::max(watching.max_rss, *rss);
    }
    const uint64_t before = monotonic_ns();
    const auto reading = watching.recorder.readings() == 0 && target.read_backlog ? target.read_backlog(false)
                                                                                  : target.read(false);
    process.reading_ns += monotonic_ns() - before;
    process.readings += 1;
    if (!reading) {
      if (watching.recorder.readings() == 0) {
        process.unread_because = reading.error().message();
      }
      return;
    }
    if (!target.info.conf_is_effective) {
      target.info.conf_is_effective = collect::apply_effective(target.info, *reading);
      process.info = target.info;
    }
    watching.recorder.add(*reading);
    const auto allocated = reading->total(static_cast<uint64_t>(::sysconf(_SC_PAGESIZE))).allocated;
    if (allocated) {
      watching.allocated.add(reading->at_ns, static_cast<double>(*allocated));
    } else {
      watching.allocated_known = false;
    }
  }

  void finish(const Target& target) {
    const auto found = watching_.find(target.id.born_ns);
    if (found == watching_.end()) {
      return;
    }
    Watching& watching = found->second;
    Watched& process = result_.processes[watching.number];
    process.summary = tracer_->summary(target);
    process.activity = watching.recorder.take();
    process.activity.from_start = target.from_its_start;
    measure(process, watching);
    watching_.erase(found);
  }

  static void measure(Watched& process, const Watching& watching) {
    advise::Measured& out = process.measured;
    out.seconds = static_cast<double>(process.summary.window_ns) / 1e9;
    out.mean_rss_bytes = watching.rss.value();
    out.max_rss_bytes = watching.max_rss;
    out.mean_resident_bytes =
        process.activity.mean_resident_pages() * static_cast<double>(process.activity.page_bytes);
    if (watching.allocated_known && !watching.allocated.empty()) {
      out.mean_allocated_bytes = watching.allocated.value();
    }
    out.purged_pages = process.activity.purged_pages();
    uint64_t traced_pages = 0;
    for (uint8_t kind = 0; kind < JT_TRANSITIONS; ++kind) {
      const auto& by_payer = process.summary.totals.transitions[kind].by_payer;
      out.app_purge_ns += static_cast<double>(by_payer[JT_PAYER_APP].sum_ns());
      out.background_purge_ns += static_cast<double>(by_payer[JT_PAYER_BACKGROUND].sum_ns());
      traced_pages += process.summary.totals.transitions[kind].total().bytes() / process.activity.page_bytes;
    }
    if (process.summary.exited || !out.purged_pages) {
      out.purged_pages = traced_pages;  // also what was done behind the last reading
    }
    if (const auto& back = process.summary.refaults) {
      const double rate = back->sampling_rate().value_or(1);
      out.refaulted_pages =
          static_cast<uint64_t>(static_cast<double>(back->within_60s.pages) / std::max(rate, 1e-3));
    }
  }

  /// What it costs is CPU time: on a busy host the clock also counts others.
  static uint64_t cpu_ns() {
    timespec time{};
    ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
    return static_cast<uint64_t>(time.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(time.tv_nsec);
  }

  void read_all() {
    const uint64_t before = cpu_ns();
    for (Target* target : tracer_->live()) {
      read(*target);
    }
    const uint64_t took = cpu_ns() - before;
    round_ns_ = round_ns_ == 0 ? took : round_ns_ - round_ns_ / 8 + took / 8;
    period_ns_ = std::clamp(round_ns_ * cost_to_period, least_period_ns, most_period_ns);
  }

  [[nodiscard]] bool over(uint64_t now) const {
    if (result_.exit_status) {
      return true;
    }
    if (options_.duration &&
        now - began_ns_ >= static_cast<uint64_t>(std::chrono::nanoseconds(*options_.duration).count())) {
      return true;
    }
    return !launch_ && options_.selection.only_pids() && tracer_->live().empty();
  }

  Status loop(Signals& signals) {
    uint64_t next_ns = began_ns_;
    while (!over(monotonic_ns())) {
      const uint64_t now = monotonic_ns();
      if (now >= next_ns) {
        read_all();
        next_ns = std::max(next_ns + period_ns_, monotonic_ns());
      }
      const uint64_t wait = next_ns > monotonic_ns() ? next_ns - monotonic_ns() : 0;
      const timespec timeout{.tv_sec = static_cast<time_t>(wait / 1'000'000'000),
                             .tv_nsec = static_cast<long>(wait % 1'000'000'000)};
      std::array<pollfd, 3> fds{{{.fd = tracer_->wait_fd(), .events = POLLIN, .revents = 0},
                                 {.fd = signals.fd(), .events = POLLIN, .revents = 0},
                                 {.fd = launch_ ? launch_->pidfd() : -1, .events = POLLIN, .revents = 0}}};
      ::ppoll(fds.data(), fds.size(), &timeout, nullptr);
      TRY(tracer_->poll());
      if (launch_) {
        result_.exit_status = launch_->exit_status();
      }
      if (signals.take()) {
        result_.interrupted = true;
        return {};
      }
    }
    return {};
  }

  /// A command that outlives its time is asked to end, and made to when it does not: its status says nothing
  /// then.
  Status end_command() {
    constexpr uint64_t patience_ns = 5'000'000'000;
    if (!launch_ || result_.exit_status) {
      return {};
    }
    const uint64_t asked = monotonic_ns();
    ::kill(launch_->pid(), SIGTERM);
    for (bool forced = false; !launch_->exit_status();) {
      if (!forced && monotonic_ns() - asked > patience_ns) {
        forced = true;
        ::kill(launch_->pid(), SIGKILL);
      }
      pollfd ended{.fd = launch_->pidfd(), .events = POLLIN, .revents = 0};
      ::poll(&ended, 1, 20);
      TRY(tracer_->poll());
    }
    result_.exit_status = 0;
    return {};
  }

  const WatchOptions& options_;
  WatchResult result_;
  std::unique_ptr<Tracer> tracer_;
  std::optional<Launch> launch_;
  std::map<uint64_t, Watching> watching_;  // by born_ns
  uint64_t began_ns_ = 0, round_ns_ = 0, period_ns_ = least_period_ns;
  double cpu_before_ = 0;
};

std::optional<int64_t> number_of(const ledger::TargetInfo& info, const char* option) {
  const auto found = info.conf.find(option);
  if (found == info.conf.end()) {
    return std::nullopt;
  }
  int64_t number = 0;
  const std::string& text = found->second.value;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  return error == std::errc{} && end == text.data() + text.size() ? std::optional(number) : std::nullopt;
}

/// The decay times of most of its arenas, now; those for huge allocations have others.
advise::Settings settings_of(const Watched& process) {
  std::map<std::pair<int64_t, int64_t>, int> votes;
  for (const advise::ArenaActivity& arena : process.activity.arenas) {
    votes[{arena.dirty_ms, arena.muzzy_ms}] += 1;
  }
  std::pair<int64_t, int64_t> best{number_of(process.info, "dirty_decay_ms").value_or(10'000),
                                   number_of(process.info, "muzzy_decay_ms").value_or(0)};
  int most = votes.contains(best) ? votes[best] : 0;
  for (const auto& [times, count] : votes) {
    if (count > most) {
      most = count;
      best = times;
    }
  }
  const auto background = process.info.conf.find("background_thread");
  return {best.first, best.second,
          background != process.info.conf.end() && background->second.value == "true"};
}

Error cannot_read(const Watched& process) {
  const std::string who = fmt::format("pid {} ({})", process.info.pid, escape(process.info.comm));
  return {Errc::unsupported,
          process.unread_because.empty()
              ? who + ": too few readings of its states to simulate anything"
              : fmt::format("{}: its states cannot be read: {}", who, process.unread_because),
          0, "watch it for longer with -d; jemtrace image PID shows what can be read of its jemalloc"};
}

}  // namespace

std::string conf_variable_of(const ledger::TargetInfo& info) {
  if (info.images.empty()) {
    return {};
  }
  std::string variable = info.images.front().prefix + "malloc_conf";
  std::transform(variable.begin(), variable.end(), variable.begin(),
                 [](unsigned char c) { return static_cast<char>(std::toupper(c)); });
  return variable;
}

Result<WatchResult> watch(const WatchOptions& options) {
  return Watch(options).run();
}

Result<advise::Input> make_input(const Watched& process) {
  constexpr size_t fewest_readings = 10;
  if (process.activity.times_ns.size() < fewest_readings) {
    return tl::unexpected(cannot_read(process));
  }
  advise::Input in{.pid = process.info.pid,
                   .comm = process.info.comm,
                   .conf_variable = conf_variable_of(process.info),
                   .version = process.info.images.empty() ? "" : process.info.images.front().version,
                   .activity = process.activity,
                   .current = settings_of(process),
                   .model = {},
                   .costs = {},
                   .origins = {},
                   .measured = process.measured};
  in.period_ns = in.activity.span_ns() / (in.activity.times_ns.size() - 1);
  in.model = advise::make_model(in.activity, in.version, in.current, process.info.conf);
  const auto background = process.info.conf.find("background_thread");
  in.model.own_background = background != process.info.conf.end() && background->second.changed;
  ASSIGN_OR_RETURN(const auto tried, sample::measure_page_costs(
                                         static_cast<unsigned>(advise::purged_extent_pages(in.activity))));
  in.costs = {tried.lazy_ns, tried.forced_ns, tried.fault_ns};
  advise::measure_costs(process.summary.totals, in.activity.page_bytes, in.costs, in.origins);
  if (process.info.images.size() > 1) {
    in.caveats.emplace_back(
        "several jemallocs in this process: taken together, with the settings of the first");
  }
  if (const auto hpa = process.info.conf.find("hpa");
      hpa != process.info.conf.end() && hpa->second.value == "true") {
    in.caveats.emplace_back("the huge page allocator has rules of its own, which are not simulated");
  }
  return in;
}

}  // namespace jemtrace::cli
