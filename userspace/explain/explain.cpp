#include "explain/explain.hpp"

#include <algorithm>
#include <array>

#include "explain/thresholds.hpp"
#include "util/text.hpp"

namespace jemtrace::explain {
namespace {

using ledger::Finding;

constexpr std::array table = {
    Rule{"STUCK_DIRTY", Tree::rss, 20, stuck_dirty},
    Rule{"LAZYFREE_INFLATED", Tree::rss, 30, lazyfree_inflated},
    Rule{"LAZYFREE_STARVED", Tree::rss, 12, lazyfree_starved},
    Rule{"KHUGEPAGED_REFILL", Tree::rss, 14, khugepaged_refill},
    Rule{"LAZYFREE_CANCELLED_BY_COLLAPSE", Tree::rss, 13, lazyfree_cancelled},
    Rule{"GHOST_THP", Tree::rss, 16, ghost_thp},
    Rule{"EAGER_OVERSIZE", Tree::purge, 41, eager_oversize},
    Rule{"APP_THREADS_PAY", Tree::purge, 43, app_threads_pay},
    Rule{"LOCK_BOUND_PURGE", Tree::purge, 42, lock_bound_purge},
    Rule{"WORK_BOUND_PURGE", Tree::purge, 46, work_bound_purge},
    Rule{"SHOOTDOWN_BOUND", Tree::purge, 44, shootdown_bound},
    Rule{"PURGE_THRASH", Tree::purge, 45, purge_thrash},
    Rule{"FRAGMENTED", Tree::rss, 22, fragmented},
    Rule{"ARENA_SPRAWL", Tree::rss, 18, arena_sprawl},
    Rule{"CONF_NOT_APPLIED", Tree::setup, 2, conf_not_applied},
    Rule{"VMA_EXPLOSION", Tree::setup, 3, vma_explosion},
    Rule{"NOT_JEMALLOC", Tree::rss, 24, not_jemalloc},
    Rule{"VIRT_ONLY", Tree::rss, 60, virt_only},
    Rule{"MLOCKED", Tree::setup, 4, mlocked},
    Rule{"FORK_SHARED", Tree::rss, 11, fork_shared},
    Rule{"OOM_CONTEXT", Tree::setup, 1, oom_context},
};
constexpr const char* healthy_id = "HEALTHY";

/// Where both are found, only the first is said: it is the cause of the second, or its remedy excludes it.
struct Beats {
  const char* winner;
  const char* loser;
};
constexpr Beats beats[] = {
    {"ARENA_SPRAWL", "STUCK_DIRTY"},            // which arenas are stuck
    {"PURGE_THRASH", "STUCK_DIRTY"},            // keep longer, against give back sooner
    {"MLOCKED", "KHUGEPAGED_REFILL"},           // resident for another reason
    {"MLOCKED", "STUCK_DIRTY"},                 // it could not be purged
    {"LAZYFREE_STARVED", "LAZYFREE_INFLATED"},  // there is pressure
    {"LAZYFREE_CANCELLED_BY_COLLAPSE", "LAZYFREE_INFLATED"},
    {"LAZYFREE_CANCELLED_BY_COLLAPSE", "KHUGEPAGED_REFILL"},  // what came back was never away
    {"FORK_SHARED", "LAZYFREE_INFLATED"},                     // why it stays
    {"KHUGEPAGED_REFILL", "NOT_JEMALLOC"},
    {"EAGER_OVERSIZE", "PURGE_THRASH"},  // what comes back are the oversize extents
    {"LOCK_BOUND_PURGE", "WORK_BOUND_PURGE"},
    {"LOCK_BOUND_PURGE", "APP_THREADS_PAY"},  // they pay for the lock
    {"SHOOTDOWN_BOUND", "WORK_BOUND_PURGE"},
    {"PURGE_THRASH", "WORK_BOUND_PURGE"},
    {"PURGE_THRASH", "APP_THREADS_PAY"},  // who should do what should not be done
    {"EAGER_OVERSIZE", "WORK_BOUND_PURGE"},
    {"APP_THREADS_PAY", "WORK_BOUND_PURGE"},
};

const Finding* find(const std::vector<Finding>& all, const std::string& id) {
  const auto found = std::find_if(all.begin(), all.end(), [&](const Finding& one) { return one.id == id; });
  return found == all.end() ? nullptr : &*found;
}

double evidence_of(const Finding& finding, const char* name) {
  for (const ledger::Evidence& evidence : finding.evidence) {
    if (evidence.name == name) {
      return evidence.value.value_or(0);
    }
  }
  return 0;
}

/// Both are true of different bytes; what is larger is why RSS is high.
void keep_the_larger_waste(std::vector<Finding>& findings) {
  const Finding* holes = find(findings, "FRAGMENTED");
  const Finding* others = find(findings, "NOT_JEMALLOC");
  if (holes == nullptr || others == nullptr) {
    return;
  }
  const double slack = evidence_of(*holes, "active") - evidence_of(*holes, "allocated");
  const std::string loser = slack >= evidence_of(*others, "other_heap") ? "NOT_JEMALLOC" : "FRAGMENTED";
  std::erase_if(findings, [&](const Finding& one) { return one.id == loser; });
}

void resolve(std::vector<Finding>& findings) {
  for (const Beats& pair : beats) {
    if (find(findings, pair.winner) != nullptr) {
      std::erase_if(findings, [&](const Finding& one) { return one.id == pair.loser; });
    }
  }
  keep_the_larger_waste(findings);
  // Of a process that is no more, what it held is said there.
  if (const Finding* kill = find(findings, "OOM_CONTEXT");
      kill != nullptr && kill->severity == ledger::Severity::critical) {
    std::erase_if(findings, [](const Finding& one) { return one.id == "STUCK_DIRTY"; });
  }
}

int priority_of(const Finding& finding) {
  const Rule* rule = find_rule(finding.id);
  return rule == nullptr ? 100 : rule->priority;
}

void sort(std::vector<Finding>& findings) {
  std::stable_sort(findings.begin(), findings.end(), [](const Finding& a, const Finding& b) {
    return a.severity != b.severity ? a.severity > b.severity : priority_of(a) < priority_of(b);
  });
}

/// Nothing was found. That is health only if somebody looked.
void judge_health(const Inputs& in, Evaluation& out) {
  if (!in.end.dirty || !in.work) {
    out.unmeasured.push_back(
        {healthy_id, !in.end.dirty ? "jemalloc's dirty pages are not known" : "nothing was traced"});
    return;
  }
  const PurgeWork work = purge_work(*in.work);
  const uint64_t dirty_limit =
      std::max(least_bytes,
               static_cast<uint64_t>(healthy_dirty_share * static_cast<double>(in.end.active.value_or(0))));
  Maybe<double> came_back;
  if (in.refaults) {
    came_back = in.refaults->followed_pages == 0 ? 0 : in.refaults->share(in.refaults->within_10s);
  }
  const bool decaying = *in.end.dirty > dirty_limit;
  Draft draft(in, ledger::Severity::ok,
              decaying ? "nothing is wrong: much was freed just now, and it decays"
                       : "nothing is wrong: what is freed decays, and nobody waits for it");
  const bool busy = in.window_ns > 0 &&
                    static_cast<double>(work.ns) >= busy_window_share * static_cast<double>(in.window_ns);
  draft.confidence(decaying || busy ? 0.7 : 0.9);
  draft.bytes("dirty", in.end.dirty, dirty_limit)
      .bytes("active", in.end.active)
      .share("touched_again_within_10s", came_back)
      .ns("app_call_p99", work.app_calls > 0 ? Maybe<uint64_t>(work.app_p99_ns) : Maybe<uint64_t>(0),
          slow_call_ns)
      .share("purge_time_of_window",
             in.window_ns > 0
                 ? Maybe<double>(static_cast<double>(work.ns) / static_cast<double>(in.window_ns))
                 : std::nullopt,
             busy_window_share)
      .remedy("Nothing to do.");
  for (const Unmeasured& one : out.unmeasured) {
    draft.unmeasured(one.id + ": " + one.because, 0.03);
  }
  Finding finding = *draft.yes().finding;
  finding.id = healthy_id;
  out.findings.push_back(std::move(finding));
}

}  // namespace

std::span<const Rule> rules() {
  return table;
}

const Rule* find_rule(const std::string& id) {
  const auto* const found =
      std::find_if(table.begin(), table.end(), [&](const Rule& rule) { return rule.id == id; });
  return found == table.end() ? nullptr : found;
}

std::vector<std::string> all_ids() {
  std::vector<std::string> ids;
  ids.reserve(table.size() + 1);
  for (const Rule& rule : table) {
    ids.emplace_back(rule.id);
  }
  ids.emplace_back(healthy_id);
  return ids;
}

Evaluation evaluate(const Inputs& in) {
  Evaluation out;
  for (const Rule& rule : table) {
    Verdict verdict = rule.judge(in);
    if (verdict.finding) {
      verdict.finding->id = rule.id;
      out.findings.push_back(std::move(*verdict.finding));
    } else if (!verdict.cannot.empty()) {
      out.unmeasured.push_back({rule.id, std::move(verdict.cannot)});
    }
  }
  resolve(out.findings);
  sort(out.findings);
  if (out.findings.empty()) {
    judge_health(in, out);
  }
  return out;
}

void describe(const ledger::TargetInfo& target, Inputs& in) {
  in.pid = target.pid;
  in.conf = target.conf;
  in.conf_is_effective = target.conf_is_effective;
  in.many_images = target.images.size() > 1;
  if (target.images.empty()) {
    return;
  }
  const ledger::ImageInfo& image = target.images.front();
  in.version = parse_version(image.version);
  in.conf_variable = image.prefix + "malloc_conf";
  std::transform(in.conf_variable.begin(), in.conf_variable.end(), in.conf_variable.begin(),
                 [](unsigned char c) { return static_cast<char>(c >= 'a' && c <= 'z' ? c - 'a' + 'A' : c); });
}

namespace {

Moment moment_of(const ledger::Sample& sample, const ledger::States& states) {
  Moment moment;
  if (sample.rss_bytes) {
    moment.rss = sample.rss_bytes->value;
  }
  if (sample.lazyfree_bytes) {
    moment.lazyfree = sample.lazyfree_bytes->value;
  }
  moment.allocated = states.allocated_bytes;
  moment.active = states.active_bytes;
  moment.dirty = states.dirty_bytes;
  moment.muzzy = states.muzzy_bytes;
  moment.retained = states.retained_bytes;
  return moment;
}

}  // namespace

Inputs inputs_of(const Cheap& cheap) {
  Inputs in;
  describe(cheap.target, in);
  in.window_ns = cheap.window_ns;
  in.start = moment_of(cheap.first_sample, cheap.first_states);
  in.end = moment_of(cheap.last_sample, cheap.last_states);
  in.work = cheap.delta;
  in.refaults = cheap.refaults;
  const ledger::Pressed& pressed = cheap.pressed;
  if (pressed.of == "cgroup") {
    in.start.cgroup.emplace();
    in.end.cgroup.emplace();
    in.end.cgroup->pressure = pressed.pressure;
    if (pressed.lazyfreed_pages) {
      in.start.cgroup->pglazyfreed = 0;
      in.end.cgroup->pglazyfreed = pressed.lazyfreed_pages;
    }
  } else {
    in.end.host.pressure = pressed.pressure;
    if (pressed.lazyfreed_pages) {
      in.start.host.pglazyfreed = 0;
      in.end.host.pglazyfreed = pressed.lazyfreed_pages;
    }
  }
  const auto background = in.conf.find("background_thread");
  if (background != in.conf.end()) {
    in.background_threads = background->second.value == "true" ? 1 : 0;
  }
  return in;
}

}  // namespace jemtrace::explain
