// The numbers of a tracer's targets: as they run, and when they have ended.
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>

#include "collect/tracer.hpp"
#include "ledger/work.hpp"
#include "util/clock.hpp"

namespace jemtrace::collect {
namespace {

/// Can a page fault of this process bring a huge page into jemalloc's memory?
bool huge_pages_possible(const ledger::TargetInfo& target) {
  const auto mode = read_file("/sys/kernel/mm/transparent_hugepage/enabled", 256);
  if (!mode || mode->find("[never]") != std::string::npos) {
    return false;
  }
  const auto is = [&](const char* option, const char* value) {
    const auto setting = target.conf.find(option);
    return setting != target.conf.end() && setting->second.value == value;
  };
  // With "madvise", jemalloc has to ask for them.
  const bool not_asked_for = is("thp", "default") && !is("hpa", "true");
  return mode->find("[madvise]") == std::string::npos || !not_asked_for;
}

}  // namespace

std::vector<Target*> Tracer::live() const {
  std::vector<Target*> out;
  for (const auto& [born, target] : targets_) {
    if (!target->images.empty()) {
      out.push_back(target.get());
    }
  }
  std::sort(out.begin(), out.end(),
            [](const Target* a, const Target* b) { return a->process.pid < b->process.pid; });
  return out;
}

ledger::Totals Tracer::totals(const Target& target) const {
  if (target.ended || stopped_) {
    return target.final_totals;
  }
  ledger::Totals totals;
  totals.counters = bpf_->counters(target.id).value_or(jt_counters{});
  bpf_->each_work(target.id,
                  [&](const jt_work_key& key, const jt_work& work) { ledger::add(totals, key, work); });
  return totals;
}

std::map<uint64_t, ledger::Totals> Tracer::totals_of_live() const {
  std::map<uint64_t, ledger::Totals> all;
  bpf_->each_counters(
      [&](const jt_target_id& id, const jt_counters& counters) { all[id.born_ns].counters = counters; });
  bpf_->each_work(
      [&](const jt_work_key& key, const jt_work& work) { ledger::add(all[key.born_ns], key, work); });
  return all;
}

void Tracer::visit(const Visitor& visitor) const {
  std::map<uint64_t, jt_counters> counters;
  bpf_->each_counters([&](const jt_target_id& id, const jt_counters& one) { counters[id.born_ns] = one; });
  bpf_->each_work([&](const jt_work_key& key, const jt_work& work) {
    const Target* target = find(key.born_ns);
    if (target == nullptr || key.transition >= JT_TRANSITIONS || key.payer >= JT_PAYERS) {
      return;
    }
    ledger::add(counters[key.born_ns], key, work);
    visitor.histogram(*target, static_cast<jt_transition>(key.transition), static_cast<jt_payer>(key.payer),
                      work.done);
  });
  for (const auto& [born_ns, sum] : counters) {
    if (const Target* target = find(born_ns)) {
      visitor.counters(*target, sum);
    }
  }
}

void Tracer::sample(Target& target, const ledger::Totals& now) {
  const uint64_t muzzy_extents = now.transitions[JT_DIRTY_MUZZY].total().extents();
  const auto memory =
      target.sampler.sample(muzzy_extents != target.muzzy_extents_at_sample ||
                            target.last_sample.lazyfree_bytes.value_or(ledger::Sampled{}).value > 0);
  if (!memory || memory->rss_bytes == 0) {
    return;  // it is ending: the last sample stands
  }
  target.muzzy_extents_at_sample = muzzy_extents;
  target.last_sample.rss_bytes = ledger::Sampled{memory->rss_bytes, "statm", 0};
  target.rss.end_bytes = memory->rss_bytes;
  target.rss.max_bytes = std::max(target.rss.max_bytes.value_or(0), memory->rss_bytes);
  if (memory->lazyfree_bytes) {
    target.last_sample.lazyfree_bytes =
        ledger::Sampled{*memory->lazyfree_bytes, "smaps_rollup", memory->lazyfree_age_ms};
    target.rss.lazyfree_end_bytes = memory->lazyfree_bytes;
  }
  if (read_states(target)) {
    sample_overhead(target);
  }
  if (target.states_ns == 0) {
    target.states = target.passive.states(monotonic_ns());
  }
  if (target.states_ns > 0) {
    target.states.age_ms = (monotonic_ns() - target.states_ns) / 1'000'000;
  }
}

/// Reads a few words per arena; with thousands of arenas that is worth a budget. false: not now.
bool Tracer::read_states(Target& target) {
  const auto begin = sample::Budget::Clock::now();
  if (!target.read || !target.read_budget.allows(begin)) {
    return false;
  }
  const auto reading = target.read(false);
  const auto end = sample::Budget::Clock::now();
  target.read_budget.spent(end, end - begin);
  if (!reading) {
    return false;
  }
  if (!target.info.conf_is_effective) {
    target.info.conf_is_effective = apply_effective(target.info, *reading);
  }
  target.states = ledger::states_of(*reading, static_cast<uint64_t>(::sysconf(_SC_PAGESIZE)));
  target.states_ns = monotonic_ns();
  return true;
}

/// Of an RSS and of states that were read together.
void Tracer::sample_overhead(Target& target) {
  const auto& allocated = target.states.allocated_bytes;
  const auto& used = allocated ? allocated : target.states.active_bytes;
  if (used && target.rss.end_bytes) {
    target.overhead_of = allocated ? "rss_minus_allocated" : "rss_minus_active";
    target.overhead.add(target.states_ns, *target.rss.end_bytes - std::min(*used, *target.rss.end_bytes));
  }
}

ledger::Waits Tracer::waits(const Target& target) const {
  const bool over = target.ended || stopped_;
  const jt_waits seen = over ? target.final_waits : bpf_->waits(target.id).value_or(jt_waits{});
  ledger::Waits out;
  if (context_.lock) {
    out.lock_ns = seen.lock_ns;
    out.locks = seen.locks;
  }
  if (context_.flushes) {
    out.remote_flushes = seen.remote_flushes;
  }
  if (context_.reclaim) {
    out.reclaim_ns = seen.reclaim_ns;
    out.reclaims = seen.reclaims;
  }
  return out;
}

void Tracer::finish(Target& target, bool takes_sample) {
  target.final_waits = bpf_->waits(target.id).value_or(jt_waits{});
  target.final_totals = {};
  target.final_totals.counters = bpf_->counters(target.id).value_or(jt_counters{});
  ledger::Payers payers;
  bpf_->each_work(target.id, [&](const jt_work_key& key, const jt_work& work) {
    ledger::add(target.final_totals, key, work);
    payers.add(key, work);
  });
  target.final_waiting = bpf_->waiting_pages(target.id);
  if (takes_sample) {
    sample(target, target.final_totals);
  }
  target.pressed =
      pressed_since(target.pressed_at_start, kernel_memory(proc_, target.process.pid, cgroup_mounts_));
  target.ended_ns = monotonic_ns();
  if (!options_.details) {
    return;
  }
  target.final_payers = payers.sorted();
  for (const auto& [key, calls] : bpf_->callsites()) {
    if (key.id.born_ns != target.id.born_ns) {
      continue;
    }
    ledger::CallSiteTotals totals;
    if (const ImagePtr image = images_.by_index(key.image)) {
      totals.image = image->path.substr(image->path.rfind('/') + 1);
    }
    for (const uint64_t frame : key.frames) {
      if (frame != 0) {
        totals.frames.push_back(frame);
      }
    }
    totals.syscall = static_cast<jt_syscall>(key.syscall);
    totals.advice = key.advice;
    totals.purpose = static_cast<jt_purpose>(key.purpose);
    totals.calls = calls.calls;
    totals.bytes = calls.bytes;
    totals.failed = calls.failed;
    totals.total_ns = calls.total_ns;
    target.final_callsites.push_back(std::move(totals));
  }
  std::sort(target.final_callsites.begin(), target.final_callsites.end(),
            [](const auto& a, const auto& b) { return a.calls > b.calls; });
}

ledger::Losses Tracer::losses() const {
  uint64_t untimed = 0;
  for (const auto& [born, target] : targets_) {
    untimed += totals(*target).counters.untimed_calls;
  }
  return losses(untimed);
}

ledger::Losses Tracer::losses(uint64_t untimed_of_live) const {
  ledger::Losses losses{};
  for (size_t kind = 0; kind < losses.size(); ++kind) {
    losses[kind] = bpf_->loss(static_cast<jt_loss>(kind));
  }
  // A call of which one end was skipped is counted by its other end: no loss. Other ends are missing for
  // other reasons.
  if (auto& missed = losses[JT_LOSS_MISSED_RUN]; missed && bpf_->features().preemptible) {
    *missed -= std::min(untimed_of_ended_ + untimed_of_live, *missed);
  }
  return losses;
}

ledger::Summary Tracer::summary(const Target& target) const {
  ledger::Summary summary;
  summary.target = target.info;
  summary.window_ns = target.ended_ns - target.began_ns;
  summary.exited = target.ended;
  summary.totals = target.final_totals;
  summary.payers = target.final_payers;
  summary.callsites = target.final_callsites;
  summary.rss = target.rss;
  summary.states = target.states;
  summary.overhead = {target.overhead_of, target.overhead.report()};
  summary.pressed = target.pressed;
  const jt_counters& counters = target.final_totals.counters;
  if (counters.has_rss_delta != 0) {
    summary.rss.purge_delta_bytes = counters.rss_delta_bytes;
  }
  if (bpf_->features().page_faults) {
    summary.refaults = ledger::refaults(counters.refaults, target.final_waiting, summary.window_ns,
                                        huge_pages_possible(target.info));
  }
  if (bpf_->knows_collapses()) {
    summary.collapses = ledger::Collapses{
        .huge_pages = counters.collapses,
        .filled_bytes = counters.collapse_filled * static_cast<uint64_t>(::sysconf(_SC_PAGESIZE))};
  }
  if (options_.passive) {
    summary.asked = target.passive.asked(monotonic_ns());
    summary.asked->skipped = bpf_->skipped_mallctls();
  }
  summary.losses = losses();
  summary.exact = !target.images.empty() &&
                  std::all_of(target.images.begin(), target.images.end(),
                              [](const ImagePtr& image) { return !image->probed.empty(); }) &&
                  std::all_of(summary.losses.begin(), summary.losses.end(),
                              [](const auto& count) { return count == uint64_t{0}; }) &&
                  counters.decay[JT_STATE_UNKNOWN].nmadvise == 0 &&
                  counters.by_purpose[JT_UNCLASSIFIED].calls == 0 &&
                  counters.by_purpose[JT_PURGE_UNPROVEN].calls == 0;
  const uint64_t calls = ledger::calls(counters);
  if (counters.bpf_samples > 0) {
    summary.cost.bpf_samples = counters.bpf_samples;
    summary.cost.bpf_run_ns = counters.bpf_sampled_ns / counters.bpf_samples * calls;
  }
  summary.cost.events = calls + counters.probe_hits;
  summary.cost.probe_hits = counters.probe_hits;
  summary.cost.sampling_ns =
      static_cast<uint64_t>((target.sampler.cost() + target.read_budget.total()).count());
  summary.caveats = target.caveats;
  for (size_t i = 0; i < target.images.size() && i < summary.target.images.size(); ++i) {
    const TracedImage& image = *target.images[i];
    summary.target.images[i].tier = locate::name(image.image.tier);
    if (!image.distrust.empty()) {
      summary.caveats.push_back(image.distrust);
      summary.totals.forget_sources();
    }
  }
  for (std::string& caveat : target.passive.caveats()) {
    summary.caveats.push_back(std::move(caveat));
  }
  if (counters.untimed_calls > 0) {
    summary.caveats.push_back(fmt::format(
        "{} calls are counted but not timed: the kernel skipped one end of them", counters.untimed_calls));
  }
  summary.caveats.insert(summary.caveats.end(), notes_.begin(), notes_.end());
  summary.caveats.insert(summary.caveats.end(), images_.refused().begin(), images_.refused().end());
  return summary;
}

}  // namespace jemtrace::collect
