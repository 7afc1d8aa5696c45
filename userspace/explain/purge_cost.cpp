// Why is purging slow: who pays, what they wait for, how much work it is, and whether it was worth it.
#include <fmt/format.h>

#include <algorithm>

#include "explain/remedy.hpp"
#include "explain/rules.hpp"
#include "explain/thresholds.hpp"
#include "util/text.hpp"

namespace jemtrace::explain {
namespace {

double ratio(uint64_t part, uint64_t whole) {
  return whole > 0 ? static_cast<double>(part) / static_cast<double>(whole) : 0;
}

/// Purging takes long enough to ask why.
bool worth_asking(const Inputs& in, const PurgeWork& work) {
  return work.calls > 0 && (ratio(work.ns, in.window_ns) >= busy_window_share || work.p99_ns >= long_call_ns);
}

double ns_per_page(const Inputs& in, const PurgeWork& work) {
  const uint64_t pages = work.bytes / in.page_bytes;
  return pages > 0 ? static_cast<double>(work.ns) / static_cast<double>(pages) : 0;
}

/// Waiting for the lock is most of it; or, on a host that is short of CPUs, far more of it than the work is.
bool waits_for_lock(const Inputs& in, const PurgeWork& work) {
  const double share = ratio(in.waits.lock_ns.value_or(0), work.ns);
  const uint64_t pages = work.bytes / in.page_bytes;
  const double usual_ns = in.baseline_ns_per_page.value_or(0) * static_cast<double>(pages);
  return share >= lock_share || (share >= lock_least_share && usual_ns > 0 &&
                                 static_cast<double>(*in.waits.lock_ns) >= lock_times_work * usual_ns);
}

std::string longer_decay(const Inputs& in) {
  const std::string decay = in.option("dirty_decay_ms");
  return decay == "0" ? "1000" : decay == "10000" || decay.empty() ? "30000" : "10000";
}

/// Up to 5.3.0 the option does not reach arena 0.
void give_oversize_remedy(const Inputs& in, Draft& draft) {
  if (in.option("oversize_threshold") == "0" && in.version < oversize_obeys_since) {
    draft.remedy(
        "oversize_threshold is 0 already, which up to 5.3.0 does not reach arena 0, that of the first "
        "thread: upgrade to 5.3.1.");
  } else {
    draft
        .remedy(
            "Switch that off (oversize_threshold:0), or set as much as the largest buffers that are used "
            "again and again.")
        .set("oversize_threshold:0", oversize_since);
  }
}

constexpr const char* untraced = "nothing was traced";

}  // namespace

Verdict eager_oversize(const Inputs& in) {
  if (!in.work) {
    return cannot(untraced);
  }
  const PurgeWork work = purge_work(*in.work);
  const double share = ratio(work.oversize_bytes, work.bytes);
  if (work.oversize_bytes < least_bytes || share < oversize_share) {
    return no();
  }
  const bool background = in.background_threads.value_or(0) > 0;
  // So little time is worth knowing of, unless what was purged comes back at a price.
  const bool dear = ratio(work.oversize_ns, in.window_ns) >= slow_window_share || purge_thrash(in).finding;
  Draft draft(in, dear ? ledger::Severity::warning : ledger::Severity::info,
              fmt::format("free() itself purges: {} in extents of oversize_threshold and more, {} of all",
                          human_bytes(work.oversize_bytes), fmt::format("{:.0f} %", share * 100)));
  draft.share("oversize_bytes", share, oversize_share)
      .bytes("oversize_purged", work.oversize_bytes, least_bytes)
      .count("oversize_calls", work.oversize_calls)
      .ns("oversize_time", work.oversize_ns)
      .share("of_the_window", ratio(work.oversize_ns, in.window_ns), slow_window_share)
      .ns("slowest_call", work.max_ns)
      .remedy(
          "Freed extents that grow together to oversize_threshold (8 MiB) are purged at once, on the thread "
          "that frees, whatever the decay time is.");
  give_oversize_remedy(in, draft);
  if (!background && (!in.version.known() || in.version >= oversize_obeys_since)) {
    draft.remedy("Or leave it to background threads: background_thread:true.").set("background_thread:true");
  } else if (background && in.version.known() && in.version < oversize_obeys_since) {
    draft.remedy(fmt::format("Background threads do not help up to 5.3.0 (this is {}), but do since 5.3.1.",
                             version_text(in)));
  }
  return draft.yes();
}

Verdict app_threads_pay(const Inputs& in) {
  if (!in.work) {
    return cannot(untraced);
  }
  const PurgeWork work = purge_work(*in.work);
  // What oversize takes is another diagnosis; it always happens on the freeing thread.
  const uint64_t app_ns = work.app_ns - std::min(work.oversize_ns, work.app_ns);
  const double share = ratio(app_ns, work.ns);
  const double window = ratio(app_ns, in.window_ns);
  if (share < app_share || work.app_p99_ns < slow_call_ns || window < slow_window_share) {
    return no();
  }
  // A small call costs 1.5 us at least, 15 times a page's price. Far beyond, its thread was not on a CPU.
  const double pages = static_cast<double>(std::max<uint64_t>(1, work.app_bytes / in.page_bytes));
  const double price = static_cast<double>(app_ns) / pages;
  if (in.baseline_ns_per_page && price > delayed_baselines * *in.baseline_ns_per_page &&
      !waits_for_lock(in, work)) {
    return cannot("purge calls take far longer than their work does: the threads wait for a CPU");
  }
  const bool background = in.background_threads.value_or(0) > 0;
  Draft draft(
      in, ledger::Severity::warning,
      fmt::format("the program's own threads purge: {} takes {} or more",
                  work.app_calls < 100 ? "the slowest call" : "1 in 100 calls", human_ns(work.app_p99_ns)));
  draft.share("purge_time_on_app_threads", share, app_share)
      .ns("app_call_p99", work.app_p99_ns, slow_call_ns)
      .share("of_the_window", window, slow_window_share)
      .count("app_calls", work.app_calls)
      .bytes("app_purged", work.app_bytes)
      .count("background_threads", in.background_threads);
  const std::string decay = in.option("dirty_decay_ms");
  if (decay == "0") {
    draft
        .remedy(
            "dirty_decay_ms is 0: each free() that empties an extent purges it there and then. Give it time, "
            "and "
            "leave it to a background thread.")
        .set("background_thread:true,dirty_decay_ms:1000")
        .now(set_now(in, "dirty_decay_ms=1000"))
        .now(set_now(in, "background_thread=true"));
  } else if (!background && has(in, background_thread_since)) {
    draft
        .remedy(
            "Decay runs on whichever thread allocates or frees when its time has come. Give it a thread of "
            "its "
            "own: background_thread:true.")
        .set("background_thread:true")
        .now(set_now(in, "background_thread=true"));
  } else {
    draft.remedy("Background threads are on: what is left are purges by mallctl, or of a decay time of 0.");
  }
  return draft.remedy("Or purge where nobody waits: arena.<i>.purge when idle.").yes();
}

Verdict lock_bound_purge(const Inputs& in) {
  if (!in.work) {
    return cannot(untraced);
  }
  const PurgeWork work = purge_work(*in.work);
  if (!worth_asking(in, work)) {
    return no();
  }
  if (!in.waits.lock_ns) {
    return cannot("waits for mmap_lock were not traced: this kernel has no such tracepoints");
  }
  const double share = std::min(1.0, ratio(*in.waits.lock_ns, work.ns));
  if (!waits_for_lock(in, work)) {
    return no();
  }
  Draft draft(in, ledger::Severity::warning,
              fmt::format("{:.0f} % of the purge time is waiting for the process's mmap lock", share * 100));
  draft.share("lock_wait_of_purge_time", share, lock_share)
      .ns("lock_wait", in.waits.lock_ns)
      .count("locks_taken", in.waits.locks)
      .ns("purge_time", work.ns)
      .count("purge_calls", work.calls)
      .remedy(
          "Find who holds the lock: readers of /proc/PID/smaps, mmap(2) and munmap(2) of large ranges, "
          "page faults before Linux 6.4. Since 6.17 a purge within one mapping does not take it.");
  if (in.option("retain") == "false") {
    draft.remedy("retain is off, so each purge is an munmap(2), which takes the lock alone: retain:true.")
        .set("retain:true");
  }
  if (in.version.known() && has(in, batch_since)) {
    draft.remedy("Fewer calls: process_madvise_max_batch:64.")
        .set("process_madvise_max_batch:64", batch_since);
  }
  return draft.yes();
}

Verdict shootdown_bound(const Inputs& in) {
  if (!in.work) {
    return cannot(untraced);
  }
  const PurgeWork work = purge_work(*in.work);
  // By the median: a thread that is preempted within a call would look the same as one that waits for others.
  const uint64_t typical_ns = work.p50_ns * work.calls;
  if (work.calls == 0 || ratio(typical_ns, in.window_ns) < busy_window_share) {
    return no();
  }
  if (!in.waits.remote_flushes || !in.baseline_ns_per_page) {
    return cannot("TLB flushes on other CPUs were not traced");
  }
  const double cost = ratio(typical_ns, work.bytes / in.page_bytes);
  const double flushes = ratio(*in.waits.remote_flushes, work.calls);
  const uint64_t size = work.bytes / work.calls;
  if (cost < work_baselines * *in.baseline_ns_per_page || flushes < flushes_per_call ||
      size > small_call_bytes) {
    return no();
  }
  return Draft(in, ledger::Severity::warning,
               fmt::format("purging is made dear by interrupting other CPUs: {} a call on average",
                           human_bytes(size)))
      .number("cost_per_page", "ns", cost, work_baselines * *in.baseline_ns_per_page)
      .number("baseline_per_page", "ns", in.baseline_ns_per_page)
      .number("remote_tlb_flushes_per_call", "count", flushes, flushes_per_call)
      .bytes("bytes_per_call", size, small_call_bytes)
      .count("purge_calls", work.calls)
      .confidence(0.7)
      .remedy(
          "Each call makes all CPUs that run this process forget the range. Fewer, larger calls: a longer "
          "decay time (dirty_decay_ms:10000); fewer CPUs for the process; in virtual machines PV TLB flush.")
      .set("dirty_decay_ms:10000")
      .now(set_now(in, "dirty_decay_ms=10000"))
      .yes();
}

Verdict work_bound_purge(const Inputs& in) {
  if (!in.work) {
    return cannot(untraced);
  }
  const PurgeWork work = purge_work(*in.work);
  if (!worth_asking(in, work)) {
    return no();
  }
  if (!in.baseline_ns_per_page) {
    return cannot("what a purge costs on this host was not measured");
  }
  const double cost = ns_per_page(in, work);
  const double usual = work_baselines * *in.baseline_ns_per_page;
  const bool large = work.bytes / work.calls >= large_call_bytes;
  const double limit = large ? large_call_baselines * *in.baseline_ns_per_page : usual;
  // Of small calls the price is their own, not that of their pages. By the median, as for SHOOTDOWN_BOUND.
  const uint64_t size = work.bytes / work.calls;
  const bool many_small = cost > limit && size <= small_call_bytes &&
                          ratio(work.p50_ns * work.calls, in.window_ns) >= busy_window_share;
  if ((cost > limit && !many_small) || waits_for_lock(in, work)) {
    return no();
  }
  // One long call of a few has waited for a CPU: only where most are long is that the work.
  if (ratio(work.ns, in.window_ns) < busy_window_share && work.p50_ns < long_call_ns / 2) {
    return no();
  }
  Draft draft(in, ledger::Severity::info,
              many_small
                  ? fmt::format("purging takes as long as its many calls do: {} of {} on average",
                                human_count(work.calls), human_bytes(size))
                  : fmt::format("purging takes as long as its work does: {} in {} calls, up to {} each",
                                human_bytes(work.bytes), human_count(work.calls), human_ns(work.max_ns)));
  draft.number("cost_per_page", "ns", cost, limit)
      .number("baseline_per_page", "ns", in.baseline_ns_per_page)
      .ns("purge_time", work.ns)
      .share("of_the_window", ratio(work.ns, in.window_ns), busy_window_share)
      .ns("call_p99", work.p99_ns, long_call_ns)
      .bytes("bytes_per_call", size, many_small ? Maybe<uint64_t>(small_call_bytes) : std::nullopt)
      .ns("lock_wait", in.waits.lock_ns);
  if (!in.waits.lock_ns) {
    draft.unmeasured("waits for mmap_lock");
  }
  if (many_small) {
    const std::string longer = longer_decay(in);
    return draft
        .remedy("Each call has a price of its own, 1.5 us or more. Fewer, larger ones: dirty_decay_ms:" +
                longer + ".")
        .set("dirty_decay_ms:" + longer)
        .now(set_now(in, "dirty_decay_ms=" + longer))
        .yes();
  }
  if (cost > usual) {
    draft.unmeasured("how long the purging thread waited for a CPU", 0.2);
  }
  if (in.background_threads.value_or(0) == 0 && has(in, background_thread_since)) {
    draft.remedy("Smaller steps, on a thread of their own: background_thread:true.")
        .set("background_thread:true")
        .now(set_now(in, "background_thread=true"));
  }
  return draft
      .remedy(
          "Nothing is in its way: fewer pages have to be purged (less is freed at once, or a longer decay "
          "time where the memory is used again), or larger ones (huge pages cost a tenth per byte).")
      .yes();
}

Verdict purge_thrash(const Inputs& in) {
  if (!in.refaults) {
    return cannot("which purged pages come back was not traced");
  }
  const ledger::Refaults& refaults = *in.refaults;
  if (refaults.followed_pages == 0) {
    return no();
  }
  // Pages that have not had their 10 s leave the share open: what came back already is a lower bound.
  const double least = refaults.least_share(refaults.within_10s).value_or(0);
  const double share = std::max(refaults.share(refaults.within_10s).value_or(0), least);
  const double came_back =
      share * static_cast<double>(refaults.purged_pages) * fault_ns / static_cast<double>(in.window_ns);
  if (in.window_ns == 0 || share < thrash_share || came_back < thrash_cpu_share) {
    return no();
  }
  const std::string decay = in.option("dirty_decay_ms");
  const std::string longer = longer_decay(in);
  Draft draft(in, ledger::Severity::warning,
              fmt::format("{:.0f} % of what is purged is needed again within 10 s", share * 100));
  draft.share("touched_again_within_10s", share, thrash_share)
      .bytes("purged", refaults.purged_pages * in.page_bytes)
      .share("cpu_for_bringing_back", came_back, thrash_cpu_share)
      .share("followed", refaults.sampling_rate());
  const PurgeWork work = in.work ? purge_work(*in.work) : PurgeWork{};
  if (ratio(work.oversize_bytes, work.bytes) >= oversize_share && has(in, oversize_since)) {
    draft.remedy("Most of it are oversize extents, which no decay time keeps.");
    give_oversize_remedy(in, draft);
  } else {
    draft
        .remedy(fmt::format("Keep it longer: dirty_decay_ms:{} (it is {} now).", longer,
                            decay.empty() ? "unknown" : decay))
        .set("dirty_decay_ms:" + longer)
        .now(set_now(in, "dirty_decay_ms=" + longer));
    const std::string muzzy = in.option("muzzy_decay_ms");
    if (has(in, muzzy_decay_since) && (muzzy.empty() || muzzy == "0")) {
      draft.remedy(
          "Where RSS does not have to be exact, a muzzy_decay_ms above 0 makes coming back free of faults. "
          "jemtrace advise weighs both.");
    }
  }
  return draft.yes();
}

}  // namespace jemtrace::explain
