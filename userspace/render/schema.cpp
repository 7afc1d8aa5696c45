#include <array>
#include <initializer_list>
#include <utility>

#include "render/json_parts.hpp"
#include "render/output.hpp"
#include "render/schema_parts.hpp"

/// The NDJSON contract, written down beside ndjson.cpp; the unit tests hold the two together. Objects stay
/// open: a newer jemtrace may add keys, and its lines should still validate against the schema that a
/// consumer has kept.
namespace jemtrace::render {
namespace {

template <typename Enum>
Json names_of(unsigned first, unsigned count) {
  Json list = Json::array();
  for (unsigned i = first; i < count; ++i) {
    list.push_back(ledger::name(static_cast<Enum>(i)));
  }
  return {{"enum", list}};
}

template <typename Enum>
Json object_by(unsigned count, const Json& value) {
  std::vector<Property> properties;
  for (unsigned i = 0; i < count; ++i) {
    properties.emplace_back(ledger::name(static_cast<Enum>(i)), value);
  }
  return object(properties);
}

Json tier() {
  return choice({"symbols", "recovered", "callsite", "syscall"});
}
Json linkage() {
  return choice({"shared", "static"});
}
Json cost_class() {
  return choice({"emulated", "single_step"});
}
Json state() {
  return choice({"dirty", "muzzy", "retained"});
}
Json syscall_name() {
  return names_of<jt_syscall>(0, JT_SYSCALLS);
}
Json cause() {
  return or_null(names_of<jt_cause>(1, JT_CAUSES));
}

// ---- shared objects ----

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

Json setting() {
  return object({{"value", {{"type", Json::array({"integer", "boolean", "string"})}}},
                 {"source", described(string(), "where the value comes from")}});
}

Json conf() {
  std::vector<Property> properties;
  for (const char* option : named_settings) {
    properties.emplace_back(option, or_null(reference("setting")));
  }
  Json schema = object(properties);
  schema["additionalProperties"] = reference("setting");
  return schema;
}

std::vector<Property> role_properties() {
  return {{"offset", described(whole(), "in the file")},
          {"found_by", or_null(string())},
          {"probe", choice({"none", "entry", "entry_return"})},
          {"cost_class", or_null(cost_class())}};
}

std::vector<Property> image_properties(const Json& role) {
  return {{"path", string()},
          {"build_id", or_null(string())},
          {"version", or_null(string())},
          {"prefix", described(string(), "of jemalloc's public functions; empty: none")},
          {"linkage", or_null(linkage())},
          {"tier", or_null(tier())},
          {"roles", map_of(role)},
          {"missing", array_of(string())},
          {"notes", array_of(string())}};
}

Json states() {
  return object({{"allocated_bytes", or_null(whole())},
                 {"active_bytes", or_null(whole())},
                 {"dirty_bytes", or_null(whole())},
                 {"muzzy_bytes", or_null(whole())},
                 {"retained_bytes", or_null(whole())}});
}

Json calls() {
  return object({{"calls_total", whole()}, {"bytes_total", whole()}});
}

// ---- lines ----

Json header_line() {
  return object({{"type", constant("header")},
                 {"schema", described(whole(), "major version: keys are only added within it")},
                 {"jemtrace", string()},
                 {"kernel", or_null(string())},
                 {"host", or_null(string())},
                 {"start_unix_ns", signed_whole()},
                 {"clock", described(string(), "what ts_ns is measured with")},
                 {"command", array_of(string())},
                 {"start_mono_ns", described(or_null(whole()), "that clock at start_unix_ns")}});
}

Json target_line() {
  Json schema = object({{"type", constant("target")},
                        {"pid", whole()},
                        {"start_time_ns", described(whole(), "since boot")},
                        {"comm", string()},
                        {"exe", or_null(string())},
                        {"cgroup", or_null(string())},
                        {"container", described(or_null(object({{"runtime", or_null(string())},
                                                                {"id", string()},
                                                                {"pod_uid", or_null(string())}})),
                                                "as the path of the cgroup tells; null: in none")},
                        {"images", array_of(object(image_properties(object(role_properties()))))},
                        {"conf", conf()},
                        {"conf_unknown_because", or_null(string())}});
  schema["properties"]["rss_bytes"] = described(or_null(whole()), "by `list` only");
  schema["properties"]["lazyfree_bytes"] = described(or_null(whole()), "by `list` only");
  return schema;
}

Json transition_line() {
  return object({{"type", constant("transition")},
                 {"ts_ns", described(whole(), "start of the call")},
                 {"pid", whole()},
                 {"tid", whole()},
                 {"comm", string()},
                 {"payer", names_of<jt_payer>(0, JT_PAYERS)},
                 {"arena", or_null(whole())},
                 {"from", or_null(state())},
                 {"from_method", described(or_null(choice({"probe", "advice", "history"})),
                                           "history: from earlier events on this range, an estimate")},
                 {"to", or_null(choice({"muzzy", "retained", "returned"}))},
                 {"addr", hex_string()},
                 {"bytes", whole()},
                 {"latency_ns", whole()},
                 {"syscall", syscall_name()},
                 {"cause", cause()},
                 {"rss_delta_bytes", or_null(signed_whole())},
                 {"errno", described(whole(), "0: success")},
                 {"advice", or_null(string())},
                 {"purpose", names_of<jt_purpose>(0, JT_PURPOSES)}});
}

Json sweep_line() {
  return object({{"type", constant("sweep")},
                 {"ts_ns", whole()},
                 {"pid", whole()},
                 {"tid", whole()},
                 {"arena", or_null(whole())},
                 {"state", or_null(state())},
                 {"cause", cause()},
                 {"limit_pages", or_null(whole())},
                 {"extents", whole()},
                 {"bytes", whole()},
                 {"latency_ns", whole()}});
}

Json interval_line() {
  const Json amount = object(
      {{"extents", whole()}, {"bytes", whole()}, {"calls", whole()}, {"latency", reference("latency")}});
  const auto per_reading = [](const Json& value) {
    return object({{"states", value}, {"rss_bytes", value}, {"lazyfree_bytes", value}});
  };
  return object({{"type", constant("interval")},
                 {"pid", whole()},
                 {"comm", string()},
                 {"unix_ns", signed_whole()},
                 {"window_ns", whole()},
                 {"transitions", object_by<jt_transition>(JT_TRANSITIONS, amount)},
                 {"app_latency_ns", whole()},
                 {"background_latency_ns", whole()},
                 {"states", reference("states")},
                 {"rss_bytes", or_null(whole())},
                 {"lazyfree_bytes", or_null(whole())},
                 {"method", per_reading(or_null(string()))},
                 {"age_ms", per_reading(or_null(whole()))}});
}

Json sweeps() {
  const Json one = object({{"count", whole()}, {"by_cause", object_by<jt_cause>(JT_CAUSES, whole())}});
  Json schema = object({{"dirty", or_null(one)}, {"muzzy", or_null(one)}});
  schema["properties"]["unknown"] = one;
  return described(schema, "sweeps that purged something; null: not seen in this tier");
}

Json counters() {
  std::vector<Property> properties;
  for (const char* key : {"dirty_npurge", "dirty_nmadvise", "dirty_purged", "muzzy_npurge", "muzzy_nmadvise",
                          "muzzy_purged", "unknown_npurge", "unknown_nmadvise", "unknown_purged"}) {
    properties.emplace_back(key, or_null(whole()));
  }
  return described(object(properties),
                   "jemalloc's stats.arenas counters, counted from outside; purged is in pages");
}

Json payers() {
  return array_of(object({{"tid", whole()},
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
       {"share", described(or_null(share), "an estimate when pages are waiting; null when most are")},
       {"share_min", described(or_null(share), "touched_pages of all followed pages")},
       {"share_max", or_null(share)}});
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
      {{"bpf_run_ns",
        described(
            or_null(whole()),
            "estimate from one call in 64, its enter and its exit; probes and page faults are not in it")},
       {"bpf_samples", described(whole(), "calls timed; relative standard error about 1/sqrt of it")},
       {"events", whole()},
       {"sampling_ns", whole()},
       {"cpu_ns", whole()},
       {"max_rss_bytes", whole()},
       {"probe_hits", whole()}});
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

Json summary_line() {
  return object(
      {{"type", constant("summary")},
       {"pid", whole()},
       {"start_time_ns", whole()},
       {"comm", string()},
       {"window_ns", whole()},
       {"transitions", object_by<jt_transition>(JT_TRANSITIONS, reference("transition_totals"))},
       {"sweeps", sweeps()},
       {"counters", counters()},
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

Json per_group_kind(const Json& value) {
  std::vector<Property> properties;
  for (size_t kind = 0; kind < ledger::group_kinds; ++kind) {
    properties.emplace_back(ledger::name(static_cast<ledger::GroupKind>(kind)), value);
  }
  return object(properties);
}

Json merged_line() {
  const Json sum = reference("partial_sum");
  const Json by_cause = object_by<jt_cause>(JT_CAUSES, sum);
  std::vector<Property> counted;
  for (const char* key : {"dirty_npurge", "dirty_nmadvise", "dirty_purged", "muzzy_npurge", "muzzy_nmadvise",
                          "muzzy_purged", "unknown_npurge", "unknown_nmadvise", "unknown_purged"}) {
    counted.emplace_back(key, sum);
  }
  return object({{"type", constant("merged")},
                 {"schema", whole()},
                 {"jemtrace", string()},
                 {"runs", described(whole(), "one line \"merged_run\" follows for each")},
                 {"hosts", whole()},
                 {"groups", described(per_group_kind(whole()), "one line \"merged_group\" follows for each")},
                 {"folded_groups", described(per_group_kind(whole()), "that are in the group \"(other)\"")},
                 {"processes", described(whole(), "summaries that were added")},
                 {"window_ns", described(whole(), "summed over processes")},
                 {"transitions", object_by<jt_transition>(JT_TRANSITIONS, reference("transition_totals"))},
                 {"sweeps", object({{"dirty", by_cause}, {"muzzy", by_cause}, {"unknown", by_cause}})},
                 {"counters", object(counted)},
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

Json merged_run_line() {
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

Json merged_group_line() {
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

Json image_line() {
  std::vector<Property> role = role_properties();
  role.emplace_back("symbol", or_null(string()));
  role.emplace_back("probe_offset", or_null(whole()));
  role.emplace_back("instruction", or_null(string()));
  role.emplace_back("evidence", described(array_of(string()), "of a role found without a symbol"));
  std::vector<Property> properties = image_properties(object(role));
  properties.insert(properties.begin(), {"type", constant("image")});
  properties.emplace_back("missing_costs", described(map_of(string()), "what is not known without the role"));
  properties.emplace_back("conf_variable", or_null(string()));
  properties.emplace_back("call_sites", or_null(whole()));
  properties.emplace_back("cached", described(boolean(), "as it was found at an earlier look"));
  properties.emplace_back("structures", described(or_null(object({{"found_by", or_null(string())},
                                                                  {"arenas", or_null(hex_string())},
                                                                  {"options", map_of(hex_string())},
                                                                  {"readable", array_of(string())},
                                                                  {"missing", array_of(string())},
                                                                  {"evidence", array_of(string())}})),
                                                  "what can be read out of a process; null: nothing"));
  return object(properties);
}

Json check_line() {
  return object({{"type", constant("check")},
                 {"name", string()},
                 {"status", choice({"ok", "warn", "fail"})},
                 {"detail", string()},
                 {"hint", or_null(string())}});
}

Json finding_line() {
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

Json diagnosis_line() {
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

Json flush_line() {
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

Json stats_line() {
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

}  // namespace

std::string json_schema() {
  const std::vector<Property> lines = {
      {"header", header_line()},   {"target", target_line()},         {"transition", transition_line()},
      {"sweep", sweep_line()},     {"interval", interval_line()},     {"summary", summary_line()},
      {"image", image_line()},     {"stats", stats_line()},           {"check", check_line()},
      {"finding", finding_line()}, {"diagnosis", diagnosis_line()},   {"flush", flush_line()},
      {"merged", merged_line()},   {"merged_run", merged_run_line()}, {"merged_group", merged_group_line()},
      {"series", series_schema()}, {"advice", advice_schema()},       {"trial", trial_schema()},
  };
  Json schema = {{"$schema", "https://json-schema.org/draft/2020-12/schema"},
                 {"title", "A line of jemtrace's NDJSON"},
                 {"description", "Unknown is null, never 0. Units are in the keys."},
                 {"oneOf", Json::array()},
                 {"$defs", Json::object()}};
  for (const auto& [type, definition] : lines) {
    schema["oneOf"].push_back(reference(type));
    schema["$defs"][type] = definition;
  }
  schema["$defs"]["latency"] = latency();
  schema["$defs"]["mergeable_latency"] = mergeable_latency();
  schema["$defs"]["partial_sum"] = partial_sum();
  schema["$defs"]["transition_totals"] = transition_totals();
  schema["$defs"]["setting"] = setting();
  schema["$defs"]["states"] = states();
  schema["$defs"]["decay"] = decay();
  schema["$defs"]["reading"] = reading();
  schema["$defs"]["pressure"] = pressure();
  schema["$defs"]["cgroup"] = cgroup();
  return schema.dump(2) + '\n';
}

}  // namespace jemtrace::render
