// Why is RSS high: memory that is held dirty, fragmented, not jemalloc's, or not there at all.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "explain/remedy.hpp"
#include "explain/rules.hpp"
#include "explain/thresholds.hpp"
#include "util/text.hpp"

namespace jemtrace::explain {
namespace {

/// What decay should have purged, and did not look at.
struct Stuck {
  uint64_t bytes = 0;
  unsigned arenas = 0;
  Maybe<uint64_t> idle_ns;  // of the largest one
  bool never = false;       // the largest one is set to keep everything
};

bool is_stuck(const Arena& arena) {
  if (!arena.dirty_decay_ms || arena.dirty.value_or(0) == 0) {
    return false;
  }
  if (*arena.dirty_decay_ms < 0) {
    return true;
  }
  const double limit_ns = std::max(static_cast<double>(stuck_least_ns),
                                   stuck_decay_times * 1e6 * static_cast<double>(*arena.dirty_decay_ms));
  return *arena.dirty_decay_ms > 0 && arena.idle_ns && static_cast<double>(*arena.idle_ns) > limit_ns;
}

Stuck find_stuck(const Inputs& in) {
  Stuck stuck;
  uint64_t largest = 0;
  for (const Arena& arena : in.arenas) {
    if (!is_stuck(arena)) {
      continue;
    }
    stuck.bytes += *arena.dirty;
    stuck.arenas += 1;
    if (*arena.dirty > largest) {
      largest = *arena.dirty;
      stuck.never = *arena.dirty_decay_ms < 0;
      stuck.idle_ns = stuck.never ? std::nullopt : arena.idle_ns;
    }
  }
  return stuck;
}

bool clocks_known(const Inputs& in) {
  return std::any_of(in.arenas.begin(), in.arenas.end(), [](const Arena& arena) {
    return arena.idle_ns || arena.dirty_decay_ms.value_or(0) < 0;
  });
}

/// Where arenas' clocks are unknown, what was watched has to do: dirty all along, and nothing purged for
/// longer than decay takes.
Maybe<Stuck> stuck_by_watching(const Inputs& in) {
  const std::string decay = in.option("dirty_decay_ms");
  const double decay_ms = decay.empty() ? 10'000 : std::strtod(decay.c_str(), nullptr);
  if (!in.work || !in.start.dirty || !in.end.dirty ||
      (decay_ms >= 0 && static_cast<double>(in.window_ns) < stuck_decay_times * 1e6 * decay_ms)) {
    return std::nullopt;
  }
  Stuck stuck;
  if (purge_work(*in.work).calls == 0) {
    stuck.bytes = std::min(*in.start.dirty, *in.end.dirty);
    stuck.idle_ns = in.window_ns;
    stuck.never = decay_ms < 0;
  }
  return stuck;
}

}  // namespace

Verdict stuck_dirty(const Inputs& in) {
  if (!in.end.dirty) {
    return cannot("jemalloc's dirty pages are not known");
  }
  const uint64_t limit = matters(in.end.rss.value_or(0));
  if (*in.end.dirty < limit) {
    return no();
  }
  const Maybe<Stuck> stuck = clocks_known(in) ? Maybe<Stuck>(find_stuck(in)) : stuck_by_watching(in);
  if (!stuck) {
    return cannot("when arenas last decayed is not known, and the window is shorter than two decay times");
  }
  if (stuck->bytes < limit) {
    return no();
  }
  Draft draft(in, ledger::Severity::warning,
              stuck->never ? fmt::format("{} of freed memory is kept for ever: dirty_decay_ms is -1",
                                         human_bytes(stuck->bytes))
                           : fmt::format("{} of freed memory is dirty, and nobody purges it",
                                         human_bytes(stuck->bytes)));
  draft.bytes("dirty", stuck->bytes, limit)
      .bytes("rss", in.end.rss)
      .ns("since_decay_looked", stuck->idle_ns)
      .count("background_threads", in.background_threads);
  if (stuck->arenas > 0) {
    draft.count("arenas", stuck->arenas);
  }
  if (stuck->never) {
    return draft.remedy("Let it decay: dirty_decay_ms:10000.")
        .set("dirty_decay_ms:10000")
        .now(set_now(in, "dirty_decay_ms=10000"))
        .yes();
  }
  draft.remedy(
      "jemalloc looks at its decay clock only when a thread allocates or frees in the arena, past its thread "
      "cache: a process that went idle keeps what it freed last.");
  if (in.background_threads.value_or(0) > 0) {
    draft.confidence(0.7).remedy(
        "Background threads are on and did not do it: before 5.3.1 some arenas (of oversize allocations, "
        "jemalloc PR 2642) have none. Upgrade, or purge by hand.");
  } else if (has(in, background_thread_since)) {
    draft.remedy("Let a thread of jemalloc's own do it: background_thread:true.")
        .set("background_thread:true")
        .now(set_now(in, "background_thread=true"));
  }
  if (in.version.known() && in.version < tick_on_free_since) {
    draft.remedy(fmt::format(
        "Upgrade from {}: up to 5.2.1 a thread whose first call is free() never lets anything decay.",
        version_text(in)));
  }
  return draft.remedy("--purge gives it back once.").now(purge_now(in)).yes();
}

Verdict arena_sprawl(const Inputs& in) {
  if (in.arenas.empty() || !in.end.dirty) {
    return cannot("jemalloc's arenas could not be read");
  }
  const auto holding = static_cast<uint64_t>(std::count_if(
      in.arenas.begin(), in.arenas.end(), [](const Arena& arena) { return arena.dirty.value_or(0) > 0; }));
  if (in.cpus <= 0) {
    return cannot("how many CPUs the process may use is not known");
  }
  const auto most = static_cast<uint64_t>(std::ceil(sprawl_arenas_per_cpu * in.cpus));
  const uint64_t limit = matters(in.end.rss.value_or(0));
  if (in.arenas.size() <= most || holding < sprawl_least_arenas || *in.end.dirty < limit) {
    return no();
  }
  const Stuck stuck = find_stuck(in);
  const double idle = static_cast<double>(stuck.bytes) / static_cast<double>(*in.end.dirty);
  if (idle < sprawl_idle_share || stuck.arenas <= in.cpus) {
    return no();
  }
  const auto fewer = std::max<uint64_t>(1, static_cast<uint64_t>(std::ceil(in.cpus)));
  Draft draft(in, ledger::Severity::warning,
              fmt::format("{} arenas for {:.3g} CPUs: {} of them sit on {} of freed memory", in.arenas.size(),
                          in.cpus, stuck.arenas, human_bytes(stuck.bytes)));
  draft.count("arenas", in.arenas.size(), most)
      .number("cpus", "count", in.cpus)
      .bytes("dirty", *in.end.dirty, limit)
      .share("dirty_in_idle_arenas", idle, sprawl_idle_share)
      .remedy(fmt::format(
          "Each arena keeps a cache of its own. As many arenas as CPUs, or twice that: narenas:{}.{}",
          2 * fewer,
          in.cpu_quota ? " By default jemalloc counts the CPUs of the host, not the quota of the container."
                       : ""));
  const bool alone = has(in, background_thread_since) && in.background_threads.value_or(0) == 0;
  if (alone) {
    draft.remedy("Let idle arenas decay: background_thread:true.").now(set_now(in, "background_thread=true"));
  }
  return draft.set(fmt::format("narenas:{}{}", 2 * fewer, alone ? ",background_thread:true" : ""))
      .now(purge_now(in))
      .yes();
}

Verdict fragmented(const Inputs& in) {
  if (!in.end.active) {
    return cannot("jemalloc's active pages are not known");
  }
  if (!in.end.allocated) {
    return cannot("how much is allocated could not be read; --mallctl=call asks jemalloc itself");
  }
  const uint64_t slack = *in.end.active - std::min(*in.end.allocated, *in.end.active);
  const double share =
      *in.end.active > 0 ? static_cast<double>(slack) / static_cast<double>(*in.end.active) : 0;
  const uint64_t cached = in.end.dirty.value_or(0) + in.end.lazyfree.value_or(0);
  if (slack < least_bytes || share < fragmented_share || slack < cached) {
    return no();
  }
  return Draft(in, ledger::Severity::warning,
               fmt::format("{} of {} active memory is holes in slabs that are partly in use",
                           human_bytes(slack), human_bytes(*in.end.active)))
      .bytes("active", in.end.active)
      .bytes("allocated", in.end.allocated)
      .share("slack", share, fragmented_share)
      .bytes("dirty", in.end.dirty)
      .remedy(
          "Decay tuning will not help: no page of it is free. Look at which size classes hold it (jemtrace "
          "stats --classes) and at who allocates them (jemtrace prof). What helps: objects of "
          "one lifetime in an arena of their own, fewer arenas (narenas), activedefrag in Redis, a restart.")
      .yes();
}

Verdict not_jemalloc(const Inputs& in) {
  if (!in.end.other_heap || !in.end.rss || !in.end.active) {
    return cannot("which anonymous memory is jemalloc's is not known");
  }
  const uint64_t limit =
      std::max(least_bytes, static_cast<uint64_t>(not_jemalloc_share * static_cast<double>(*in.end.rss)));
  const uint64_t sure = *in.end.other_heap - std::min(in.end.uncertain.value_or(0), *in.end.other_heap);
  if (sure < limit) {
    return no();
  }
  return Draft(in, ledger::Severity::warning,
               fmt::format("{} of anonymous memory is not jemalloc's", human_bytes(*in.end.other_heap)))
      .bytes("other_heap", in.end.other_heap, limit)
      .bytes("uncertain", in.end.uncertain)
      .bytes("rss", in.end.rss)
      .bytes("active", in.end.active)
      .remedy(
          "Nothing that is set in jemalloc changes it. Look at /proc/PID/smaps: [heap] is the C library's "
          "malloc (a library that was linked to it, or a part of the program that jemalloc does not "
          "serve); large anonymous mappings are JIT code, thread stacks, memory mapped by hand.")
      .confidence(0.85)
      .yes();
}

Verdict virt_only(const Inputs& in) {
  if (!in.end.retained || !in.end.rss) {
    return cannot("jemalloc's retained memory is not known");
  }
  const double least = std::max(static_cast<double>(virtual_least_bytes),
                                virtual_times_rss * static_cast<double>(*in.end.rss));
  if (static_cast<double>(*in.end.retained) < least) {
    return no();
  }
  if (!in.end.retained_resident) {
    return cannot("how much of the retained memory is resident is not known");
  }
  const double resident =
      static_cast<double>(*in.end.retained_resident) / static_cast<double>(*in.end.retained);
  if (resident > virtual_resident_share) {
    return no();
  }
  return Draft(in, ledger::Severity::info,
               fmt::format("{} of its address space is retained: it counts in VIRT, and is not memory",
                           human_bytes(*in.end.retained)))
      .bytes("retained", in.end.retained, static_cast<uint64_t>(least))
      .bytes("retained_resident", in.end.retained_resident)
      .bytes("rss", in.end.rss)
      .remedy(
          "Nothing to do. jemalloc keeps address space that it gave back, to use it again without mmap(2). "
          "Judge by RSS less LazyFree; a limit on address space (ulimit -v) would have to leave room for it.")
      .yes();
}

}  // namespace jemtrace::explain
