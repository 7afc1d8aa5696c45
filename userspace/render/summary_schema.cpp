#include <vector>

#include "render/schema_parts.hpp"
#include "render/schemas.hpp"

/// The schemas of the sums: of one process at the end of its trace, and of many that `merge` adds.
namespace jemtrace::render {
namespace {

Json latency() {
  return object({{"count", whole()},
                 {"sum_ns", whole()},
                 {"min_ns", or_null(whole())},
                 {"p50_ns", or_null(whole())},
                 {"p90_ns", or_null(whole())},
                 {"p99_ns", or_null(whole())},
                 {"max_ns", or_null(whole())}});
}

std::vector<Property> amount_properties() {
  return {{"extents_total", whole()},
          {"bytes_total", whole()},
          {"calls_total", whole()},
          {"latency", reference("mergeable_latency")}};
}

Json mergeable_latency() {
  Json schema = latency();
  schema["properties"]["schema"] = described(whole(), "buckets per power of two: 2^schema");
  schema["properties"]["buckets"] = described(
      array_of({{"type", "array"}, {"items", signed_whole()}}),
      "[index, count], ascending, none empty: calls that took up to 2^(index / 2^schema) seconds and longer "
      "than the bucket below, as in Prometheus native and OpenTelemetry exponential histograms; the first "
      "(-192) takes all that is shorter, the last (33) all that is longer");
  schema["required"].push_back("schema");
  schema["required"].push_back("buckets");
  return schema;
}

Json partial_sum() {
  return described(object({{"sum", described(or_null(whole()), "of the known parts; null: none is known")},
                           {"parts", described(whole(), "that were added, known or not")},
                           {"unknown", described(whole(), "of them; above 0 the sum is a lower bound")}}),
                   "a sum of which parts may be unknown");
}

Json transition_totals() {
  std::vector<Property> properties = amount_properties();
  properties.emplace_back("by_payer", object_by<jt_payer>(JT_PAYERS, object(amount_properties())));
  return object(properties);
}

Json calls() {
  return object({{"calls_total", whole()}, {"bytes_total", whole()}});
}

Json sweeps() {
  const Json one = object({{"count", whole()}, {"by_cause", object_by<jt_cause>(JT_CAUSES, whole())}});
  Json schema = object({{"dirty", or_null(one)}, {"muzzy", or_null(one)}});
  schema["properties"]["unknown"] = one;
  return described(schema, "sweeps that purged something; null: not seen in this tier");
}

Json counters(const Json& value) {
  std::vector<Property> properties;
  for (const char* key : {"dirty_npurge", "dirty_nmadvise", "dirty_purged", "muzzy_npurge", "muzzy_nmadvise",
                          "muzzy_purged", "unknown_npurge", "unknown_nmadvise", "unknown_purged"}) {
    properties.emplace_back(key, value);
  }
  return object(properties);
}

Json payers() {
  return array_of(
      object({{"tid", described(whole(), "0: all threads that there was no room for, \"(other threads)\"")},
              {"comm", string()},
              {"payer", names_of<jt_payer>(0, JT_PAYERS)},
              {"calls", whole()},
              {"latency_ns", whole()},
              {"bytes", whole()}}));
}

Json rss() {
  return object(
      {{"start_bytes", or_null(whole())},
       {"end_bytes", or_null(whole())},
       {"max_bytes", or_null(whole())},
       {"lazyfree_end_bytes", or_null(whole())},
       {"purge_delta_bytes", described(or_null(signed_whole()), "change of RSS during purge calls")},
       {"purge_delta_error_bytes", or_null(whole())}});
}

Json asked() {
  return object(
      {{"values",
        array_of(object({{"name", string()},
                         {"value", whole()},
                         {"age_ms", described(or_null(whole()), "since the program had it counted")}}))},
       {"compared_total", described(whole(), "how often with its structures")},
       {"different_total", described(whole(), "by more than 5 % and 2 MiB")},
       {"skipped_total", described(whole(), "answers not looked at, of all programs: there were too many")}});
}

Json overhead() {
  const Json number = or_null(of_type("number"));
  return object({{"of", choice({"rss_minus_allocated", "rss_minus_active"})},
                 {"trend", or_null(choice({"steady", "ratcheting_up", "falling", "rhythmic"}))},
                 {"bytes_per_second", number},
                 {"period_s", number},
                 {"low_bytes", described(or_null(whole()), "5th percentile")},
                 {"high_bytes", described(or_null(whole()), "95th percentile")}});
}

Json pressed() {
  return object({{"of", or_null(choice({"cgroup", "host"}))},
                 {"some_avg10_percent", or_null(of_type("number"))},
                 {"full_avg10_percent", or_null(of_type("number"))},
                 {"pglazyfreed_pages", described(or_null(whole()), "during the trace")}});
}

Json refaults() {
  const Json share = {{"type", "number"}, {"minimum", 0}};
  const Json within = object(
      {{"touched_pages", whole()},
       {"touched_max_pages", described(whole(), "had each fault that may have brought a huge page done so")},
       {"waiting_pages", described(whole(), "untouched, but that time has not passed yet")},
       {"share",
        described(or_null(share),
                  "an estimate when pages are waiting; null when most are, or all that was not touched")},
       {"share_min", described(or_null(share), "touched_pages of all followed pages")},
       {"share_max",
        described(or_null(share), "share, had each fault that may have brought a huge page done so")}});
  const Json part =
      object({{"followed_pages", whole()}, {"touched_pages", described(whole(), "within 60 s")}});
  return object({{"purged_pages", described(whole(), "taken by MADV_DONTNEED or PROT_NONE")},
                 {"followed_pages", described(whole(), "the sample of them that all else is about")},
                 {"sampling_rate", described(or_null(share), "below 1 the shares are estimates")},
                 {"within_1s", within},
                 {"within_10s", within},
                 {"within_60s", within},
                 {"by_from", object({{"dirty", part}, {"muzzy", part}, {"unknown", part}})},
                 {"evicted_pages", described(whole(), "lost sight of within 60 s, for want of room")},
                 {"evicted_chunks", whole()}});
}

Json cost() {
  return object(
      {{"bpf_run_ns", described(or_null(whole()),
                                "estimate from one call in 64, its enter and its exit; leaves out the "
                                "programs of probes (uprobes) and of page faults")},
       {"bpf_samples", described(whole(), "calls timed; relative standard error about 1/sqrt of it")},
       {"events", described(whole(), "memory calls and probe_hits")},
       {"sampling_ns", whole()},
       {"cpu_ns", whole()},
       {"max_rss_bytes", whole()},
       {"probe_hits",
        described(whole(),
                  "of the probes on sweeps, up to each thread's last purge: later hits are missing")}});
}

Json losses() {
  return described(object_by<jt_loss>(JT_LOSSES, or_null(whole())),
                   "of the whole host; null: this kernel does not count it");
}

Json other() {
  std::vector<Property> properties;
  for (const jt_purpose purpose : {JT_ZERO_FILL, JT_BOOT_PROBE, JT_METADATA, JT_HPA, JT_TRIM, JT_ABANDON,
                                   JT_OTHER_ADVICE, JT_THREAD_STACK, JT_FOREIGN, JT_UNCLASSIFIED}) {
    properties.emplace_back(ledger::name(purpose), calls());
  }
  return object(properties);
}

Json callsites() {
  return array_of(object({{"image", described(or_null(string()), "null: not in a jemalloc")},
                          {"frames", described(array_of(hex_string()), "file offsets, innermost first")},
                          {"functions", array_of(or_null(string()))},
                          {"syscall", syscall_name()},
                          {"advice", or_null(string())},
                          {"purpose", names_of<jt_purpose>(0, JT_PURPOSES)},
                          {"calls_total", whole()},
                          {"bytes_total", whole()},
                          {"failed_total", whole()},
                          {"latency_total_ns", whole()}}));
}

}  // namespace

std::vector<Property> summary_definitions() {
  return {{"latency", latency()},
          {"mergeable_latency", mergeable_latency()},
          {"partial_sum", partial_sum()},
          {"transition_totals", transition_totals()}};
}

Json summary_schema() {
  return object(
      {{"type", constant("summary")},
       {"pid", whole()},
       {"start_time_ns", whole()},
       {"comm", string()},
       {"window_ns", whole()},
       {"transitions", object_by<jt_transition>(JT_TRANSITIONS, reference("transition_totals"))},
       {"sweeps", sweeps()},
       {"counters", described(counters(or_null(whole())),
                              "jemalloc's stats.arenas counters, counted from outside; purged is in pages")},
       {"payers", payers()},
       {"rss", rss()},
       {"states", described(reference("states"), "at the end")},
       {"overhead", described(or_null(overhead()), "resident beyond what is used, over time")},
       {"pressure", pressed()},
       {"losses", losses()},
       {"cost", cost()},
       {"failed_calls", object({{"einval", whole()}, {"other", whole()}})},
       {"other", described(other(), "calls that are not among the transitions")},
       {"unproven", described(calls(), "among the transitions, but may be zero fills")},
       {"oversize_extents_total", or_null(whole())},
       {"callsites", callsites()},
       {"exact", boolean()},
       {"exited", boolean()},
       {"caveats", array_of(string())},
       {"refaults",
        described(or_null(refaults()), "purged pages that were touched again; null: not measured")},
       {"collapses",
        described(
            or_null(object({{"huge_pages_total", whole()},
                            {"filled_bytes_total",
                             described(whole(), "of them not resident before: purged, or never touched")}})),
            "huge pages that the kernel made of small ones; null: not measured")},
       {"asked",
        described(or_null(asked()),
                  "what the program asked its own jemalloc, latest answers; null: without --passive")}});
}

Json merged_schema() {
  const Json sum = reference("partial_sum");
  const Json by_cause = object_by<jt_cause>(JT_CAUSES, sum);
  return object({{"type", constant("merged")},
                 {"schema", whole()},
                 {"jemtrace", string()},
                 {"runs", described(whole(), "one line \"merged_run\" follows for each")},
                 {"hosts", whole()},
                 {"groups", described(object_by<ledger::GroupKind>(ledger::group_kinds, whole()),
                                      "one line \"merged_group\" follows for each")},
                 {"folded_groups", described(object_by<ledger::GroupKind>(ledger::group_kinds, whole()),
                                             "that are in the group \"(other)\"")},
                 {"processes", described(whole(), "summaries that were added")},
                 {"window_ns", described(whole(), "summed over processes")},
                 {"transitions", object_by<jt_transition>(JT_TRANSITIONS, reference("transition_totals"))},
                 {"sweeps", object({{"dirty", by_cause}, {"muzzy", by_cause}, {"unknown", by_cause}})},
                 {"counters", counters(sum)},
                 {"oversize_extents", sum},
                 {"refaults", object({{"purged_pages", sum},
                                      {"followed_pages", sum},
                                      {"touched_10s_pages", sum},
                                      {"waiting_10s_pages", sum}})},
                 {"rss_bytes", described(sum, "at the end of each trace")},
                 {"lazyfree_bytes", described(sum, "at the end of each trace")},
                 {"losses", object_by<jt_loss>(JT_LOSSES, sum)},
                 {"cpu_ns", described(sum, "jemtrace's own")}});
}

Json merged_run_schema() {
  return object({{"type", constant("merged_run")},
                 {"host", or_null(string())},
                 {"start_unix_ns", whole()},
                 {"end_unix_ns", whole()},
                 {"jemtrace", string()},
                 {"kernel", or_null(string())},
                 {"processes", whole()},
                 {"exact", described(whole(), "processes whose totals equal jemalloc's own counters")},
                 {"losses", losses()},
                 {"cpu_ns", or_null(whole())}});
}

Json merged_group_schema() {
  std::vector<Property> properties = {
      {"type", constant("merged_group")},
      {"by", choice({"host", "cgroup", "version"})},
      {"key", described(or_null(string()), "null: unknown; \"(other)\": groups beyond the bound")},
      {"processes", whole()}};
  for (const Property& property : amount_properties()) {
    properties.push_back(property);
  }
  properties.emplace_back("app_calls_total", described(whole(), "of calls_total, on the program's threads"));
  properties.emplace_back("app_ns", described(whole(), "what those threads paid"));
  properties.emplace_back("rss_bytes", reference("partial_sum"));
  properties.emplace_back("lazyfree_bytes", reference("partial_sum"));
  return object(properties);
}

}  // namespace jemtrace::render
