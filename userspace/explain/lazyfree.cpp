// Memory that was freed with MADV_FREE: it is in RSS until the kernel wants it, which may be never.
#include <fmt/format.h>

#include <algorithm>

#include "explain/remedy.hpp"
#include "explain/rules.hpp"
#include "explain/thresholds.hpp"
#include "util/text.hpp"

namespace jemtrace::explain {
namespace {

/// Pages that the kernel took lazily within the window: of the cgroup where that is counted, else of the
/// host.
struct Taken {
  Maybe<uint64_t> bytes;
  bool of_host = false;
};

Taken taken(const Inputs& in) {
  if (in.start.cgroup && in.end.cgroup) {
    if (const auto pages = grown(in.start.cgroup->pglazyfreed, in.end.cgroup->pglazyfreed)) {
      return {*pages * in.page_bytes, false};
    }
  }
  const auto pages = grown(in.start.host.pglazyfreed, in.end.host.pglazyfreed);
  return {pages ? Maybe<uint64_t>(*pages * in.page_bytes) : std::nullopt, true};
}

Maybe<double> psi(const Inputs& in) {
  if (in.end.cgroup && in.end.cgroup->pressure) {
    return in.end.cgroup->pressure->some_avg10;
  }
  return in.end.host.pressure ? Maybe<double>(in.end.host.pressure->some_avg10) : std::nullopt;
}

/// Usage as a share of the limit; nullopt: no limit, or unknown.
Maybe<double> fullness(const Inputs& in) {
  const auto& cgroup = in.end.cgroup;
  if (!cgroup || !cgroup->usage_bytes || cgroup->limit_bytes.value_or(0) == 0) {
    return std::nullopt;
  }
  return static_cast<double>(*cgroup->usage_bytes) / static_cast<double>(*cgroup->limit_bytes);
}

void give_muzzy_remedy(const Inputs& in, Draft& draft) {
  if (has(in, muzzy_decay_since)) {
    draft.remedy("Where limits, alerts or autoscalers go by RSS, do not free lazily: muzzy_decay_ms:0.")
        .set("muzzy_decay_ms:0")
        .now(set_now(in, "muzzy_decay_ms=0"));
  }
  draft.remedy("--flush-lazyfree has the kernel take it once, from outside.")
      .now(fmt::format("jemtrace diagnose --flush-lazyfree -p {}", in.pid));
}

/// Page cache that was reclaimed. Lazily freed pages are on the same lists, and counted among it.
Maybe<uint64_t> cache_taken(const Inputs& in, uint64_t lazily) {
  const auto pages = grown(in.start.host.pgsteal_file, in.end.host.pgsteal_file);
  return pages ? Maybe<uint64_t>(*pages * in.page_bytes - std::min(lazily, *pages * in.page_bytes))
               : std::nullopt;
}

}  // namespace

Verdict lazyfree_inflated(const Inputs& in) {
  if (!in.end.lazyfree || !in.end.rss) {
    return cannot("LazyFree is not known");
  }
  const uint64_t lazyfree = *in.end.lazyfree;
  const uint64_t limit = matters(*in.end.rss);
  if (lazyfree < limit) {
    return no();
  }
  const Taken took = taken(in);
  const auto pressure = psi(in);
  const auto took_limit = static_cast<uint64_t>(taken_share * static_cast<double>(lazyfree));
  if (took.bytes.value_or(0) > took_limit && pressure.value_or(pressed_psi_percent) >= pressed_psi_percent) {
    return no();  // it is being taken back: that is how it should be
  }
  Draft draft(in, ledger::Severity::warning,
              fmt::format("RSS overstates by {}: freed lazily, and the kernel has no need of it",
                          human_bytes(lazyfree)));
  draft.bytes("lazyfree", lazyfree, limit)
      .bytes("rss", in.end.rss)
      .bytes("rss_without_lazyfree", *in.end.rss - std::min(lazyfree, *in.end.rss))
      .bytes(took.of_host ? "lazyfreed_on_host" : "lazyfreed_in_cgroup", took.bytes, took_limit)
      .number("psi_some_avg10", "percent", pressure, pressed_psi_percent);
  if (!took.bytes) {
    draft.unmeasured("pages that the kernel took back: the window has one end, or /proc/vmstat lacks them");
  }
  if (!pressure) {
    draft.unmeasured("how short memory is: this kernel has no pressure information", 0.05);
  }
  draft.remedy(
      "It is no leak: judge by RSS less LazyFree. The kernel takes these pages when it is short of memory, "
      "after page cache that was used less lately.");
  if (in.end.cgroup && in.end.cgroup->usage_bytes) {
    draft.remedy(
        "In its cgroup they still count as usage and as RSS, but as inactive_file, too: the working set of "
        "kubelet and cAdvisor (usage - inactive_file) has left them out already; container_memory_rss has "
        "not.");
  }
  give_muzzy_remedy(in, draft);
  return draft.yes();
}

Verdict lazyfree_starved(const Inputs& in) {
  if (!in.end.lazyfree || !in.start.lazyfree || !in.end.rss) {
    return cannot("LazyFree at both ends of the window is not known");
  }
  if (*in.end.lazyfree < matters(*in.end.rss)) {
    return no();
  }
  const auto lazily_pages = grown(in.start.host.pglazyfreed, in.end.host.pglazyfreed);
  const uint64_t lazily = lazily_pages.value_or(0) * in.page_bytes;
  const auto cache = cache_taken(in, lazily);
  if (!cache || !lazily_pages) {
    return cannot("what the kernel reclaimed is not known (pgsteal_file, pglazyfreed)");
  }
  if (*cache < starved_cache_bytes) {
    return no();
  }
  const double share = static_cast<double>(lazily) / static_cast<double>(*cache + lazily);
  const double fell = 1 - static_cast<double>(*in.end.lazyfree) /
                              static_cast<double>(std::max<uint64_t>(1, *in.start.lazyfree));
  if (share >= starved_taken_share || fell > starved_flat_share) {
    return no();
  }
  const auto full = fullness(in);
  const auto pressure = psi(in);
  Draft draft(in, ledger::Severity::warning,
              fmt::format("memory is short, and page cache goes ({}) before {} that was freed lazily",
                          human_bytes(*cache), human_bytes(*in.end.lazyfree)));
  draft.bytes("lazyfree", in.end.lazyfree, matters(*in.end.rss))
      .bytes("page_cache_reclaimed_on_host", cache, starved_cache_bytes)
      .bytes("lazyfreed_on_host", lazily)
      .share("lazyfreed_of_reclaimed", share, starved_taken_share)
      .share("cgroup_usage_of_limit", full, limit_share)
      .number("psi_some_avg10", "percent", pressure, pressed_psi_percent)
      .count("refaulted_cache_pages_on_host",
             grown(in.start.host.workingset_refault_file, in.end.host.workingset_refault_file))
      .confidence(full.value_or(0) >= limit_share ? 0.85 : 0.7)
      .remedy(
          "Lazily freed pages stand at the young end of the list that page cache is reclaimed from, so older "
          "cache goes first; what is read again then comes from disk. In services that live from page cache "
          "do not free lazily.");
  draft.unmeasured("reclaim is counted for the whole host, not for this process's cgroup", 0.05);
  give_muzzy_remedy(in, draft);
  return draft.yes();
}

Verdict lazyfree_cancelled(const Inputs& in) {
  if (!in.start.lazyfree || !in.end.lazyfree || !in.start.rss || !in.end.rss) {
    return cannot("LazyFree at both ends of the window is not known");
  }
  const uint64_t gone = *in.start.lazyfree - std::min(*in.end.lazyfree, *in.start.lazyfree);
  if (gone < cancelled_least_bytes ||
      static_cast<double>(gone) < cancelled_share * static_cast<double>(*in.start.lazyfree)) {
    return no();
  }
  Maybe<uint64_t> huge = grown(in.start.anon_huge, in.end.anon_huge);
  if (in.collapses) {
    huge = std::max(huge.value_or(0), in.collapses->huge_pages * 2 * mib);
  }
  if (!huge) {
    return in.start.anon_huge && in.end.anon_huge ? no() : cannot("huge pages of the process are not known");
  }
  const uint64_t still_there = *in.end.rss + gone / 4;
  const Taken took = taken(in);
  if (static_cast<double>(*huge) < cancelled_huge_share * static_cast<double>(gone) ||
      still_there < *in.start.rss || took.bytes.value_or(0) > gone / 10) {
    return no();
  }
  Draft draft(in, ledger::Severity::warning,
              fmt::format("{} freed lazily can no longer be taken back: it was made into huge pages",
                          human_bytes(gone)));
  draft.bytes("lazyfree_gone", gone, cancelled_least_bytes)
      .bytes("huge_pages_gained", huge,
             static_cast<uint64_t>(cancelled_huge_share * static_cast<double>(gone)))
      .bytes("lazyfreed", took.bytes)
      .bytes("rss_start", in.start.rss)
      .bytes("rss_end", in.end.rss)
      .count("collapsed_huge_pages", in.collapses ? Maybe<uint64_t>(in.collapses->huge_pages) : std::nullopt);
  if (!in.collapses) {
    draft.unmeasured("which process khugepaged worked on", 0.1);
  }
  draft.remedy(
      "Before Linux 7.1 khugepaged copies lazily freed pages into a huge page, where they count as in use "
      "again.");
  if (has(in, muzzy_decay_since)) {
    draft.remedy("Do not free lazily: muzzy_decay_ms:0.")
        .set("muzzy_decay_ms:0")
        .now(set_now(in, "muzzy_decay_ms=0"));
  }
  if (has(in, thp_since)) {
    draft.remedy("Or keep huge pages out: thp:never.").set("thp:never", thp_since);
  }
  return draft.yes();
}

Verdict fork_shared(const Inputs& in) {
  if (!in.children) {
    return cannot("its children are not known");
  }
  if (in.children->empty()) {
    return no();
  }
  if (!in.end.shared_anonymous || !in.end.rss) {
    return cannot("what it shares with its children is not known");
  }
  const uint64_t purged = in.work ? purge_work(*in.work).bytes : 0;
  const uint64_t given = std::max(in.end.lazyfree.value_or(0), purged);
  const uint64_t limit = matters(*in.end.rss);
  // What was purged here is not mapped here any more: only the child's size shows that it is still there.
  uint64_t in_children = 0;
  for (const Child& child : *in.children) {
    in_children = std::max(in_children, child.rss.value_or(0));
  }
  const uint64_t only_there = in_children - std::min(in_children, *in.end.rss);
  const uint64_t pinned =
      std::max(std::min(*in.end.shared_anonymous, in.end.lazyfree.value_or(0)), only_there);
  if (given < limit || pinned < limit) {
    return no();
  }
  return Draft(in, ledger::Severity::warning,
               fmt::format("{} that was given back stays: a forked child (pid {}) still maps it",
                           human_bytes(pinned), in.children->front().pid))
      .bytes("pinned", pinned, limit)
      .bytes("shared_anonymous", in.end.shared_anonymous)
      .bytes("lazyfree", in.end.lazyfree)
      .bytes("purged_in_window", purged)
      .count("forked_children", in.children->size())
      .bytes("largest_child_rss", in_children)
      .confidence(0.8)
      .remedy(
          "It comes free when the child ends (BGSAVE, a preforked worker). Purge before fork(2) "
          "(arena.<i>.purge), not after it; let the child drop with MADV_DONTNEED what it does not need, as "
          "Redis does; do not free while it lives what it maps, too.")
      .yes();
}

}  // namespace jemtrace::explain
