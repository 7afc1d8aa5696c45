#include "cli/serve_watch.hpp"

#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>

#include "explain/explain.hpp"
#include "sample/memory.hpp"
#include "util/clock.hpp"

namespace jemtrace::cli {
namespace {

using collect::Target;

/// Exemplars are of purges that took at least this long; an event for each costs little then.
constexpr uint64_t slow_ns = 100'000;

bool is_distrusted(const Target& target) {
  return std::any_of(target.images.begin(), target.images.end(),
                     [](const collect::ImagePtr& image) { return !image->distrust.empty(); });
}

uint64_t sampling_ns_of(const Target& target) {
  return static_cast<uint64_t>((target.sampler.cost() + target.read_budget.total()).count());
}

uint64_t cpu_ns() {
  rusage usage{};
  ::getrusage(RUSAGE_SELF, &usage);
  const auto ns = [](const timeval& time) {
    return static_cast<uint64_t>(time.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(time.tv_usec) * 1000;
  };
  return ns(usage.ru_utime) + ns(usage.ru_stime);
}

}  // namespace

ServeWatch::ServeWatch(Options options)
    : options_(std::move(options)), accounts_(options_.limits), start_unix_ns_(unix_ns()) {}

Result<std::unique_ptr<ServeWatch>> ServeWatch::start(Options options) {
  std::unique_ptr<ServeWatch> watch(new ServeWatch(std::move(options)));
  collect::TracerOptions tracing = watch->options_.tracing;
  tracing.details = false;
  tracing.slow_ns = slow_ns;
  ServeWatch* self = watch.get();
  ASSIGN_OR_RETURN(
      watch->tracer_,
      collect::Tracer::start(
          std::move(tracing),
          {.on_target = [self](Target& target) { self->begin(target); },
           .on_end = [self](Target& target) { self->end(target); },
           .on_call = [self](Target& target, const jt_call_event& event) { self->slow(target, event); }}));
  return watch;
}

void ServeWatch::begin(Target& target) {
  const uint64_t now = monotonic_ns();
  const uint64_t born = target.id.born_ns;
  accounts_.begin(born, target.info, now);
  accounts_.measure(
      born, serve::gauges_of(target.last_sample, target.states, options_.sample_every_ns * 3 / 1'000'000));
  Watched& watched = watched_[born];
  if (is_distrusted(target)) {
    watched.told.emplace();
  }
  // Not all at once: 500 targets that are there at the start share the interval. It is jemalloc's first
  // second that is of least use to wait for: settings and states come with the next look.
  constexpr uint64_t first_look_ns = 1'000'000'000;
  const uint64_t spread = options_.sample_every_ns > first_look_ns
                              ? (born * 2'654'435'761U) % (options_.sample_every_ns - first_look_ns)
                              : 0;
  watched.sample_at_ns =
      now + std::min(first_look_ns, options_.sample_every_ns) + (due_.size() < 16 ? 0 : spread);
  while (!due_.emplace(watched.sample_at_ns, born).second) {
    ++watched.sample_at_ns;
  }
}

void ServeWatch::end(Target& target) {
  const auto it = watched_.find(target.id.born_ns);
  if (it == watched_.end()) {
    return;
  }
  accounts_.end(target.id.born_ns, work_of(it->second, target.final_totals), monotonic_ns());
  add_cost(ended_, target.final_totals.counters, sampling_ns_of(target));
  due_.erase(it->second.sample_at_ns);
  with_before_ -= it->second.before ? 1 : 0;
  watched_.erase(it);
}

void ServeWatch::slow(const Target& target, const jt_call_event& event) {
  if (event.transition >= JT_TRANSITIONS || event.payer >= JT_PAYERS || event.ret != 0) {
    return;
  }
  serve::Exemplar exemplar{.pid = target.process.pid,
                           .tid = static_cast<pid_t>(event.h.tid),
                           .latency_ns = event.latency_ns,
                           .unix_ns = unix_ns()};
  if (event.arena != JT_NO_ARENA) {
    exemplar.arena = event.arena;
  }
  accounts_.slow(target.id.born_ns, static_cast<jt_transition>(event.transition),
                 static_cast<jt_payer>(event.payer), exemplar, monotonic_ns());
}

serve::Work ServeWatch::work_of(const Watched& watched, const ledger::Totals& totals) {
  return watched.told ? serve::work_since_distrust(*watched.told, totals) : serve::Work(totals);
}

void ServeWatch::add_cost(serve::Own& own, const jt_counters& counters, uint64_t sampling_ns) {
  own.sampling_ns += sampling_ns;
  if (counters.bpf_samples > 0) {
    own.bpf_run_ns =
        own.bpf_run_ns.value_or(0) + counters.bpf_sampled_ns / counters.bpf_samples * ledger::calls(counters);
  }
}

uint64_t ServeWatch::sample_some(uint64_t now_ns) {
  constexpr uint64_t turn_ns = 1'000'000;  // a scrape may be waiting
  const std::vector<Target*> live =
      due_.empty() || due_.begin()->first > now_ns ? std::vector<Target*>{} : tracer_->live();
  std::map<uint64_t, Target*> by_birth;
  for (Target* target : live) {
    by_birth[target->id.born_ns] = target;
  }
  while (!due_.empty() && due_.begin()->first <= now_ns && monotonic_ns() - now_ns < turn_ns) {
    const uint64_t born = due_.begin()->second;
    due_.erase(due_.begin());
    Watched& watched = watched_.at(born);
    if (const auto target = by_birth.find(born); target != by_birth.end()) {
      sample(*target->second, watched, now_ns);
    }
    watched.sample_at_ns = now_ns + options_.sample_every_ns;
    while (!due_.emplace(watched.sample_at_ns, born).second) {
      ++watched.sample_at_ns;
    }
  }
  return due_.empty() ? now_ns + options_.sample_every_ns : due_.begin()->first;
}

void ServeWatch::sample(Target& target, Watched& watched, uint64_t now_ns) {
  const ledger::Totals totals = tracer_->totals(target);
  tracer_->sample(target, totals);
  accounts_.measure(target.id.born_ns, serve::gauges_of(target.last_sample, target.states,
                                                        options_.sample_every_ns * 3 / 1'000'000));
  look_for_findings(target, watched, totals, now_ns);
}

void ServeWatch::look_for_findings(const Target& target, Watched& watched, const ledger::Totals& totals,
                                   uint64_t now_ns) {
  if (!watched.before && with_before_ >= options_.limits.max_targets) {
    return;
  }
  if (watched.before) {
    const Watched::Before& before = *watched.before;
    const ledger::Totals delta = totals.since(before.totals);
    watched.alerts.update(explain::evaluate(explain::inputs_of({.target = target.info,
                                                                .window_ns = now_ns - before.at_ns,
                                                                .delta = delta,
                                                                .first_sample = before.sample,
                                                                .last_sample = target.last_sample,
                                                                .first_states = before.states,
                                                                .last_states = target.states})));
    std::map<std::string, bool> states = watched.alerts.states();
    states.erase("HEALTHY");  // nothing to be alarmed about
    accounts_.set_findings(target.id.born_ns, states);
  } else {
    watched.before = std::make_unique<Watched::Before>();
    ++with_before_;
  }
  *watched.before = {totals, target.last_sample, target.states, now_ns};
}

serve::Exposition ServeWatch::expose() {
  const uint64_t begin = monotonic_ns();
  serve::Own own = ended_;
  std::map<uint64_t, serve::Work> live;
  uint64_t untimed = 0;
  tracer_->visit(
      {.counters =
           [&](const Target& target, const jt_counters& counters) {
             live[target.id.born_ns].add(counters);
             untimed += counters.untimed_calls;
             add_cost(own, counters, sampling_ns_of(target));
           },
       .histogram =
           [&](const Target& target, jt_transition transition, jt_payer payer, const jt_hist& histogram) {
             live[target.id.born_ns].add(transition, payer, ledger::Histogram(histogram));
           }});
  for (const Target* target : tracer_->live()) {
    const auto it = watched_.find(target->id.born_ns);
    if (it == watched_.end() || !is_distrusted(*target)) {
      continue;
    }
    const ledger::Totals totals = tracer_->totals(*target);
    if (!it->second.told) {
      it->second.told = totals;
    }
    live[target->id.born_ns] = work_of(it->second, totals);
  }
  own.version = options_.version;
  own.kernel = options_.kernel;
  own.start_unix_ns = start_unix_ns_;
  own.follows_refaults = tracer_->features().page_faults;
  own.losses = tracer_->losses(untimed);
  own.losses[JT_LOSS_RING].reset();  // only exemplars come that way
  own.cpu_ns = cpu_ns();
  own.rss_bytes = sample::read_rss(ProcRoot(), ::getpid()).value_or(0);
  own.snapshot_ns = snapshot_ns_;
  if (options_.add_counts) {
    options_.add_counts(own);
  }
  serve::Exposition exposition = accounts_.expose(live, own, begin, unix_ns());
  snapshot_ns_ = monotonic_ns() - begin;
  return exposition;
}

}  // namespace jemtrace::cli
