#include <vector>

#include "render/schema_parts.hpp"
#include "render/schemas.hpp"

/// The schemas of what is said of a process or the host without a trace's events: stats, check, diagnose,
/// flush.
namespace jemtrace::render {
namespace {

Json account() {
  std::vector<Property> parts;
  for (size_t i = 0; i < ledger::part_count; ++i) {
    parts.emplace_back(ledger::name(static_cast<ledger::Part>(i)) + std::string("_bytes"), or_null(whole()));
  }
  return object(
      {{"rss_bytes", whole()},
       {"resident", described(object(parts), "by what the memory is for; adds up to RSS")},
       {"unexplained_bytes", described(signed_whole(), "rss_bytes minus the sum of the parts")},
       {"bound_bytes", described(whole(), "unexplained_bytes is not further from 0 than this")},
       {"uncertain_bytes", described(whole(), "may belong to another part than the one it is in")},
       {"allocated_bytes", described(or_null(whole()), "of what is active, thread caches included")},
       {"tcache_bytes", described(or_null(whole()), "allocated, and held by thread caches")},
       {"slack_bytes", described(or_null(whole()), "active and not allocated: fragmentation")},
       {"muzzy_not_resident_bytes", or_null(whole())},
       {"lazyfree_bytes", whole()},
       {"lazyfree_lag_bytes", described(whole(), "by so much lazyfree_bytes may be too low")},
       {"anon_huge_bytes", whole()},
       {"swap_bytes", whole()},
       {"notes", array_of(string())}});
}

Json decay() {
  return object({{"decay_ms", or_null(signed_whole())},
                 {"limit_pages", or_null(whole())},
                 {"npurge", or_null(whole())},
                 {"nmadvise", or_null(whole())},
                 {"purged", or_null(whole())}});
}

Json arena_reading() {
  return object({{"index", whole()},
                 {"nthreads", or_null(whole())},
                 {"pactive", or_null(whole())},
                 {"pdirty", or_null(whole())},
                 {"pmuzzy", or_null(whole())},
                 {"pretained", or_null(whole())},
                 {"allocated_bytes", or_null(whole())},
                 {"tcache_bytes", or_null(whole())},
                 {"dirty", reference("decay")},
                 {"muzzy", reference("decay")}});
}

Json mallctl() {
  return object(
      {{"allocated_bytes", or_null(whole())},
       {"active_bytes", or_null(whole())},
       {"metadata_bytes", or_null(whole())},
       {"resident_bytes", described(or_null(whole()), "with muzzy pages up to 5.2, without since 5.3.0")},
       {"mapped_bytes", or_null(whole())},
       {"retained_bytes", or_null(whole())},
       {"epoch", described(or_null(whole()), "how often the statistics were counted anew")}});
}

Json reading() {
  const Json method = choice({"structures", "passive", "call", "configuration"});
  return object(
      {{"method", method},
       {"completed_by", described(or_null(method), "what `method` did not know")},
       {"at_mono_ns", whole()},
       {"cost_ns", whole()},
       {"states", reference("states")},
       {"metadata_bytes", or_null(whole())},
       {"tcache_bytes", or_null(whole())},
       {"options", map_of(string())},
       {"arenas", array_of(arena_reading())},
       {"mallctl", described(or_null(mallctl()), "stats.* as the process itself says; null: not asked")},
       {"size_classes",
        array_of(object({{"bytes", whole()}, {"large", boolean()}, {"blocks", or_null(whole())}}))},
       {"discarded", described(whole(), "values read and found impossible or torn")},
       {"reasons", array_of(string())}});
}

Json pressure() {
  return object({{"some_avg10_percent", of_type("number")},
                 {"full_avg10_percent", of_type("number")},
                 {"some_total_us", whole()},
                 {"full_total_us", whole()}});
}

Json cgroup() {
  return object({{"path", string()},
                 {"version", whole()},
                 {"usage_bytes", or_null(whole())},
                 {"limit_bytes", described(or_null(whole()), "the lowest from here up")},
                 {"unlimited", described(boolean(), "none from here up has a limit")},
                 {"anon_bytes", or_null(whole())},
                 {"inactive_file_bytes", or_null(whole())},
                 {"pglazyfree_pages", or_null(whole())},
                 {"pglazyfreed_pages", or_null(whole())},
                 {"pressure", or_null(reference("pressure"))}});
}

Json host() {
  return object({{"pglazyfree_pages", or_null(whole())},
                 {"pglazyfreed_pages", or_null(whole())},
                 {"mem_total_bytes", or_null(whole())},
                 {"mem_available_bytes", or_null(whole())},
                 {"transparent_hugepage", or_null(string())},
                 {"nr_anon_partially_mapped", or_null(whole())},
                 {"pressure", or_null(reference("pressure"))}});
}

}  // namespace

std::vector<Property> report_definitions() {
  return {{"decay", decay()}, {"reading", reading()}, {"pressure", pressure()}, {"cgroup", cgroup()}};
}

Json stats_schema() {
  return object({{"type", constant("stats")},
                 {"pid", whole()},
                 {"start_time_ns", whole()},
                 {"comm", string()},
                 {"page_bytes", whole()},
                 {"account", account()},
                 {"reading", or_null(reference("reading"))},
                 {"unread_because", or_null(string())},
                 {"cgroup", or_null(reference("cgroup"))},
                 {"host", host()},
                 {"sampling_ns", whole()}});
}

Json check_schema() {
  return object({{"type", constant("check")},
                 {"name", string()},
                 {"status", choice({"ok", "warn", "fail"})},
                 {"detail", string()},
                 {"hint", or_null(string())}});
}

Json finding_schema() {
  return object({{"type", constant("finding")},
                 {"id", described(string(), "stable: docs/diagnoses.md has a section for each")},
                 {"pid", whole()},
                 {"severity", choice({"ok", "info", "warning", "critical"})},
                 {"title", string()},
                 {"evidence", array_of(object({{"name", string()},
                                               {"value", or_null(of_type("number"))},
                                               {"unit", string()},
                                               {"threshold", or_null(of_type("number"))}}))},
                 {"remedy", string()},
                 {"settings", described(array_of(string()),
                                        "environment variables for its next start, each an alternative")},
                 {"commands", described(array_of(string()), "for a shell, now")},
                 {"confidence", described(of_type("number"), "0 to 1")},
                 {"unmeasured", array_of(string())}});
}

Json diagnosis_schema() {
  const Json purging = object({{"calls", whole()},
                               {"bytes", whole()},
                               {"time_ns", whole()},
                               {"max_ns", whole()},
                               {"app_calls", whole()},
                               {"app_time_ns", whole()},
                               {"app_p99_ns", or_null(whole())},
                               {"oversize_calls", whole()},
                               {"oversize_time_ns", whole()},
                               {"lock_wait_ns", or_null(whole())},
                               {"remote_tlb_flushes", or_null(whole())},
                               {"direct_reclaim_ns", or_null(whole())},
                               {"per_page_ns", or_null(of_type("number"))},
                               {"baseline_per_page_ns", or_null(of_type("number"))},
                               {"touched_again_share", or_null(of_type("number"))}});
  return object(
      {{"type", constant("diagnosis")},
       {"pid", whole()},
       {"window_ns", whole()},
       {"exited", boolean()},
       {"findings", described(array_of(string()), "ids, most severe first")},
       {"not_judged", array_of(object({{"id", string()}, {"because", string()}}))},
       {"lazily_taken_bytes", described(or_null(whole()), "by the kernel, of what was freed lazily")},
       {"purging", or_null(purging)}});
}

Json flush_schema() {
  return object({{"type", constant("flush")},
                 {"pid", whole()},
                 {"comm", string()},
                 {"lazyfree_before_bytes", or_null(whole())},
                 {"lazyfree_after_bytes", or_null(whole())},
                 {"rss_before_bytes", whole()},
                 {"rss_after_bytes", whole()},
                 {"advised_bytes", whole()},
                 {"ranges", whole()},
                 {"took_ns", whole()}});
}

}  // namespace jemtrace::render
