#include "serve/accounts.hpp"

#include <algorithm>

#include "util/clock.hpp"
#include "util/text.hpp"

namespace jemtrace::serve {
namespace {

constexpr uint64_t page_bytes = 1 << JT_PAGE_SHIFT;
constexpr size_t longest_value = 256;  // bytes of a label; cgroups can have 4096
constexpr size_t most_images = 8;      // of one target, with their own jemtrace_target_info
constexpr uint64_t recent_ns = 60'000'000'000;

/// Untrusted bytes as the value of a label. What is too long loses its middle: both ends tell it from others.
std::string label_value(const std::string& untrusted) {
  std::string value = escape(untrusted);
  if (value.empty()) {
    return "unknown";
  }
  if (value.size() <= longest_value) {
    return value;
  }
  const auto starts_character = [&](size_t i) {
    return (static_cast<unsigned char>(value[i]) & 0xc0) != 0x80;
  };
  size_t head = longest_value / 2 - 3;
  size_t tail = value.size() - longest_value / 2;
  while (!starts_character(head)) {
    --head;
  }
  while (!starts_character(tail)) {
    ++tail;
  }
  return value.substr(0, head) + "..." + value.substr(tail);
}

}  // namespace

Work::Work(const ledger::Totals& totals) {
  add(totals.counters);
  for (int transition = 0; transition < JT_TRANSITIONS; ++transition) {
    for (int payer = 0; payer < JT_PAYERS; ++payer) {
      add(static_cast<jt_transition>(transition), static_cast<jt_payer>(payer),
          totals.transitions[static_cast<size_t>(transition)].by_payer[static_cast<size_t>(payer)]);
    }
  }
}

void Work::add(const jt_counters& counters) {
  for (size_t state = 0; state < JT_STATES; ++state) {
    for (size_t cause = 0; cause < JT_CAUSES; ++cause) {
      sweeps[state][cause] += counters.sweeps[state][cause];
    }
    followed_pages += counters.refaults.followed_pages[state];
    for (const uint64_t pages : counters.refaults.touched_pages[state]) {
      refaulted_pages += pages;
    }
  }
}

void Work::add(jt_transition transition, jt_payer payer, const ledger::Histogram& histogram) {
  if (histogram.count() > 0 || histogram.extents() > 0) {
    purges[{transition, payer}].merge(histogram);
  }
}

void Work::add(const Work& other) {
  for (size_t state = 0; state < JT_STATES; ++state) {
    for (size_t cause = 0; cause < JT_CAUSES; ++cause) {
      sweeps[state][cause] += other.sweeps[state][cause];
    }
  }
  followed_pages += other.followed_pages;
  refaulted_pages += other.refaulted_pages;
  for (const auto& [purge, histogram] : other.purges) {
    purges[purge].merge(histogram);
  }
}

Work work_since_distrust(const ledger::Totals& told, const ledger::Totals& now) {
  ledger::Totals later = now.since(told);
  later.forget_sources();
  Work work(told);
  work.add(Work(later));
  return work;
}

Gauges gauges_of(const ledger::Sample& sample, const ledger::States& states, uint64_t max_age_ms) {
  Gauges gauges;
  if (sample.rss_bytes) {
    gauges.rss_bytes = sample.rss_bytes->value;
  }
  if (sample.lazyfree_bytes && sample.lazyfree_bytes->age_ms <= max_age_ms) {
    gauges.lazyfree_bytes = sample.lazyfree_bytes->value;
  }
  if (states.age_ms && *states.age_ms <= max_age_ms) {
    gauges.allocated_bytes = states.allocated_bytes;
    gauges.active_bytes = states.active_bytes;
    gauges.dirty_bytes = states.dirty_bytes;
    gauges.muzzy_bytes = states.muzzy_bytes;
    gauges.retained_bytes = states.retained_bytes;
  }
  return gauges;
}

Accounts::Accounts(Limits limits) : limits_(limits) {
  // Cgroups begin with a slash: nobody else can have these labels.
  other_.labels = std::make_shared<const Labels>(Labels{{"name", "other"}, {"cgroup", "other"}});
  other_.start_unix_ns = unix_ns();
}

// ---- who is who
// ----------------------------------------------------------------------------------------------------

Accounts::Target& Accounts::target_of(const ledger::TargetInfo& info, uint64_t now_ns) {
  const Key key{label_value(info.comm), label_value(info.cgroup), limits_.pid_label ? info.pid : 0};
  if (const auto known = targets_.find(key); known != targets_.end()) {
    return known->second;
  }
  if (targets_.size() >= limits_.max_targets && !make_room(now_ns)) {
    return other_;
  }
  Labels labels{{"name", std::get<0>(key)}, {"cgroup", std::get<1>(key)}};
  if (limits_.pid_label) {
    labels.push_back({"pid", std::to_string(info.pid)});
  }
  Target& target = targets_[key];
  target.labels = std::make_shared<const Labels>(std::move(labels));
  if (info.container) {
    target.container = {{"container", label_value(info.container->id)}};
    if (!info.container->pod_uid.empty()) {
      target.container.push_back({"pod_uid", label_value(info.container->pod_uid)});
    }
  }
  target.start_unix_ns = unix_ns();
  return target;
}

/// Takes the place of the target that has been without a process for longest. What it did was scraped under
/// its own name: added to "other" it would count twice in any sum.
bool Accounts::make_room(uint64_t now_ns) {
  auto oldest = targets_.end();
  for (auto it = targets_.begin(); it != targets_.end(); ++it) {
    if (it->second.live == 0 &&
        (oldest == targets_.end() || it->second.idle_since_ns < oldest->second.idle_since_ns)) {
      oldest = it;
    }
  }
  if (oldest == targets_.end() || now_ns - oldest->second.idle_since_ns < limits_.keep_ended_ns / 5) {
    return false;
  }
  targets_.erase(oldest);
  ++expired_;
  return true;
}

void Accounts::expire(uint64_t now_ns) {
  expired_ += std::erase_if(targets_, [&](const auto& entry) {
    return entry.second.live == 0 && now_ns - entry.second.idle_since_ns >= limits_.keep_ended_ns;
  });
}

void Accounts::begin(uint64_t process, const ledger::TargetInfo& info, uint64_t now_ns) {
  if (processes_.contains(process)) {
    return;
  }
  Target& target = target_of(info, now_ns);
  target.live += 1;
  ++processes_seen_;
  processes_[process].target = &target;
  for (const ledger::ImageInfo& image : info.images) {
    if (&target != &other_ && target.images.size() < most_images) {
      target.images.emplace(image.version.empty() ? "unknown" : label_value(image.version), image.tier,
                            image.linkage);
    }
  }
}

void Accounts::measure(uint64_t process, const Gauges& gauges) {
  if (const auto it = processes_.find(process); it != processes_.end()) {
    it->second.gauges = gauges;
  }
}

void Accounts::set_findings(uint64_t process, const std::map<std::string, bool>& findings) {
  const auto it = processes_.find(process);
  if (it == processes_.end()) {
    return;
  }
  auto& counts = it->second.target->findings;
  for (const std::string& id : it->second.findings) {
    counts[id] -= 1;
  }
  it->second.findings.clear();
  for (const auto& [id, on] : findings) {
    size_t& count = counts[id];
    if (on) {
      it->second.findings.insert(id);
      count += 1;
    }
  }
}

void Accounts::slow(uint64_t process, jt_transition transition, jt_payer payer, const Exemplar& exemplar,
                    uint64_t now_ns) {
  const auto it = processes_.find(process);
  if (it == processes_.end()) {
    return;
  }
  Recent& recent = it->second.target->slowest[{transition, payer}];
  if (exemplar.latency_ns >= recent.exemplar.latency_ns || now_ns - recent.seen_ns > recent_ns) {
    recent = {exemplar, now_ns};
  }
}

void Accounts::end(uint64_t process, const Work& work, uint64_t now_ns) {
  const auto it = processes_.find(process);
  if (it == processes_.end()) {
    return;
  }
  set_findings(process, {});
  Target& target = *it->second.target;
  target.ended.add(work);
  target.live -= 1;
  target.idle_since_ns = now_ns;
  processes_.erase(it);
}

// ---- what is said
// --------------------------------------------------------------------------------------------------

/// In the order in which they are written. docs/metrics.md has each of them.
struct Accounts::Families {
  Family purge_duration{"jemtrace_purge_duration_seconds", Type::histogram, "seconds",
                        "Time that the calls took by which jemalloc gave pages back."};
  Family purged{"jemtrace_purged_bytes", Type::counter, "bytes",
                "Pages that changed their state in a purge."};
  Family sweeps{"jemtrace_sweeps", Type::counter, "", "Decay passes over an arena that purged something."};
  Family states{"jemtrace_state_bytes", Type::gauge, "bytes",
                "Memory that jemalloc holds, by its own books; the states exclude each other."};
  Family allocated{"jemtrace_allocated_bytes", Type::gauge, "bytes",
                   "Memory in the hands of the program, by jemalloc's own books; a part of active."};
  Family rss{"jemtrace_rss_bytes", Type::gauge, "bytes", "Resident set."};
  Family lazyfree{"jemtrace_lazyfree_bytes", Type::gauge, "bytes",
                  "Resident memory that the kernel may take whenever it wants (LazyFree)."};
  Family refaulted{"jemtrace_refaulted_bytes", Type::counter, "bytes",
                   "Purged pages that were touched again, of those that were followed."};
  Family followed{"jemtrace_refault_followed_bytes", Type::counter, "bytes",
                  "Purged pages that were followed: the sample behind jemtrace_refaulted_bytes_total."};
  Family findings{"jemtrace_finding", Type::gauge, "", "1 while a process has this finding, 0 afterwards."};
  Family processes{"jemtrace_target_processes", Type::gauge, "", "Processes behind these labels."};
  Family info{"jemtrace_target", Type::info, "", "The jemalloc in use, and how well it is understood."};
  std::vector<Family> own;

  /// A series of jemtrace itself.
  void add(std::string_view name, Type type, std::string_view unit, std::string_view help, double value,
           Labels labels = {}) {
    if (own.empty() || own.back().name != name) {
      own.push_back({name, type, unit, help});
    }
    own.back().series.push_back({.target = nullptr, .labels = std::move(labels), .value = value});
  }
};

void Accounts::expose_target(Families& out, const Target& target, const Work& work,
                             const std::vector<const Process*>& processes, uint64_t now_ns) {
  const auto add = [&](Family& family, double value, Labels labels = {}) {
    family.series.push_back({.target = target.labels,
                             .labels = std::move(labels),
                             .value = value,
                             .start_unix_ns = target.start_unix_ns});
  };
  std::array<uint64_t, JT_TRANSITIONS> bytes{};
  std::array<bool, JT_TRANSITIONS> seen{};
  for (const auto& [purge, histogram] : work.purges) {
    const auto& [transition, payer] = purge;
    bytes[transition] += histogram.bytes();
    seen[transition] = true;
    auto point = std::make_shared<HistogramPoint>(HistogramPoint{histogram, {}});
    if (const auto slowest = target.slowest.find(purge);
        slowest != target.slowest.end() && now_ns - slowest->second.seen_ns <= recent_ns) {
      point->exemplar = slowest->second.exemplar;
    }
    out.purge_duration.series.push_back(
        {.target = target.labels,
         .labels = {{"transition", ledger::name(transition)}, {"payer", ledger::name(payer)}},
         .point = std::move(point),
         .start_unix_ns = target.start_unix_ns});
  }
  for (size_t i = 0; i < bytes.size(); ++i) {
    if (seen[i]) {
      add(out.purged, static_cast<double>(bytes[i]),
          {{"transition", ledger::name(static_cast<jt_transition>(i))}});
    }
  }
  for (size_t state = 0; state < JT_STATES; ++state) {
    for (size_t cause = 0; cause < JT_CAUSES; ++cause) {
      if (const uint64_t count = work.sweeps[state][cause]; count > 0) {
        add(out.sweeps, static_cast<double>(count),
            {{"state", ledger::name(static_cast<jt_state>(state))},
             {"cause", ledger::name(static_cast<jt_cause>(cause))}});
      }
    }
  }
  if (work.followed_pages > 0) {
    add(out.refaulted, static_cast<double>(work.refaulted_pages * page_bytes));
    add(out.followed, static_cast<double>(work.followed_pages * page_bytes));
  }
  for (const auto& [id, count] : target.findings) {
    add(out.findings, count > 0 ? 1 : 0, {{"id", id}});
  }
  add(out.processes, static_cast<double>(processes.size()));
  for (const auto& [version, tier, linkage] : target.images) {
    Labels labels{{"version", version}, {"tier", tier}, {"linkage", linkage}};
    labels.insert(labels.end(), target.container.begin(), target.container.end());
    add(out.info, 1, std::move(labels));
  }
  if (processes.empty()) {
    return;
  }
  // Unknown for one is unknown for the sum.
  const auto add_sum = [&](Family& family, std::optional<uint64_t> Gauges::*field, Labels labels = {}) {
    uint64_t sum = 0;
    for (const Process* process : processes) {
      const std::optional<uint64_t>& value = process->gauges.*field;
      if (!value) {
        return;
      }
      sum += *value;
    }
    add(family, static_cast<double>(sum), std::move(labels));
  };
  add_sum(out.rss, &Gauges::rss_bytes);
  add_sum(out.lazyfree, &Gauges::lazyfree_bytes);
  add_sum(out.allocated, &Gauges::allocated_bytes);
  add_sum(out.states, &Gauges::active_bytes, {{"state", "active"}});
  add_sum(out.states, &Gauges::dirty_bytes, {{"state", "dirty"}});
  add_sum(out.states, &Gauges::muzzy_bytes, {{"state", "muzzy"}});
  add_sum(out.states, &Gauges::retained_bytes, {{"state", "retained"}});
}

/// An estimate may shrink as it gets better, a counter may not.
double Accounts::rising(const std::string& name, double value) {
  double& highest = rising_[name];
  highest = std::max(highest, value);
  return highest;
}

void Accounts::expose_own(Families& out, const Own& own) {
  const auto seconds = [](uint64_t ns) { return static_cast<double>(ns) / 1e9; };
  const auto count = [](uint64_t n) { return static_cast<double>(n); };
  if (own.bpf_run_ns) {
    out.add("jemtrace_bpf_run_seconds", Type::counter, "seconds",
            "Time spent in the kernel by jemtrace's programs on memory calls, without those on probes and "
            "page faults; an estimate.",
            rising("bpf_run", seconds(*own.bpf_run_ns)));
  }
  out.add("jemtrace_sampling_seconds", Type::counter, "seconds",
          "Time spent reading /proc and the memory of targets.",
          rising("sampling", seconds(own.sampling_ns)));
  for (size_t i = 0; i < own.losses.size(); ++i) {
    if (own.losses[i]) {
      const char* reason = ledger::name(static_cast<jt_loss>(i));
      out.add("jemtrace_lost_events", Type::counter, "", "Events that were not counted.",
              rising(reason, count(*own.losses[i])), {{"reason", reason}});
    }
  }
  out.add("jemtrace_targets", Type::gauge, "", "Processes that are traced.", count(processes_.size()));
  out.add("jemtrace_folded_targets", Type::gauge, "",
          "Processes that are traced and counted under the name other, for want of room.",
          count(other_.live));
  out.add("jemtrace_seen_targets", Type::counter, "", "Processes that were traced so far.",
          count(processes_seen_));
  out.add("jemtrace_expired_label_sets", Type::counter, "",
          "Pairs of name and cgroup that are no longer exported, as their processes ended long ago.",
          count(expired_));
  out.add("jemtrace_snapshot_duration_seconds", Type::gauge, "seconds",
          "Time it took to read the kernel's maps for the scrape before.", seconds(own.snapshot_ns));
  for (size_t i = 0; i < own.scrapes.size(); ++i) {
    constexpr std::array<const char*, 3> formats = {"text", "openmetrics", "protobuf"};
    out.add("jemtrace_scrapes", Type::counter, "", "Scrapes that were answered.", count(own.scrapes[i]),
            {{"format", formats[i]}});
  }
  out.add("jemtrace_rejected_requests", Type::counter, "",
          "Requests that were malformed, not permitted, or for something that is not there.",
          count(own.rejected_requests));
  out.add("jemtrace_rejected_connections", Type::counter, "",
          "Connections closed as they were too slow, or too many.", count(own.rejected_connections));
  if (own.push) {
    out.add("jemtrace_otlp_exports", Type::counter, "", "Exports to the OTLP collector, by outcome.",
            count(own.push->sent), {{"result", "ok"}});
    out.add("jemtrace_otlp_exports", Type::counter, "", "", count(own.push->failed), {{"result", "failed"}});
    out.add("jemtrace_otlp_dropped", Type::counter, "",
            "Exports given up, as the queue was full or the collector refused them.",
            count(own.push->dropped));
    out.add("jemtrace_otlp_queue_bytes", Type::gauge, "bytes", "Exports that wait for the OTLP collector.",
            count(own.push->queue_bytes));
  }
  out.add("jemtrace_build", Type::info, "", "The version of jemtrace, and the kernel it runs on.", 1,
          {{"version", own.version}, {"kernel", own.kernel}});
  out.add("process_cpu_seconds", Type::counter, "seconds", "CPU time of jemtrace, user and system.",
          seconds(own.cpu_ns));
  out.add("process_resident_memory_bytes", Type::gauge, "bytes", "Resident memory of jemtrace.",
          count(own.rss_bytes));
  const int64_t start_ms = own.start_unix_ns / 1'000'000;
  out.add("process_start_time_seconds", Type::gauge, "seconds", "When jemtrace was started, since 1970.",
          static_cast<double>(start_ms) / 1e3);
  for (Family& family : out.own) {
    for (Series& series : family.series) {
      series.start_unix_ns = own.start_unix_ns;
    }
  }
}

Exposition Accounts::expose(const std::map<uint64_t, Work>& live, const Own& own, uint64_t now_ns,
                            int64_t unix_ns) {
  expire(now_ns);
  std::map<const Target*, std::vector<const Process*>> members;
  std::map<const Target*, Work> works;
  for (const auto& [born, process] : processes_) {
    members[process.target].push_back(&process);
    if (const auto work = live.find(born); work != live.end()) {
      works[process.target].add(work->second);
    }
  }
  Families families;
  const auto expose_one = [&](const Target& target) {
    Work& work = works[&target];
    work.add(target.ended);
    expose_target(families, target, work, members[&target], now_ns);
  };
  for (const auto& [key, target] : targets_) {
    expose_one(target);
  }
  if (other_.live > 0 || !other_.ended.purges.empty()) {
    expose_one(other_);
  }
  expose_own(families, own);
  Exposition out{.families = {}, .made_mono_ns = now_ns, .made_unix_ns = unix_ns};
  for (Family* family : {&families.purge_duration, &families.purged, &families.sweeps, &families.states,
                         &families.allocated, &families.rss, &families.lazyfree, &families.refaulted,
                         &families.followed, &families.findings, &families.processes, &families.info}) {
    out.families.push_back(std::move(*family));
  }
  std::move(families.own.begin(), families.own.end(), std::back_inserter(out.families));
  return out;
}

}  // namespace jemtrace::serve
