#include <utility>
#include <vector>

#include "render/schema_parts.hpp"
#include "render/schemas.hpp"

/// The schema of what advise and sweep print, beside advice_json.cpp.
namespace jemtrace::render {
namespace {

std::vector<Property> settings() {
  return {{"dirty_decay_ms", described(of_type("integer"), "-1: never, 0: at once")},
          {"muzzy_decay_ms", of_type("integer")},
          {"background_thread", of_type("boolean")}};
}

std::vector<Property> operator+(std::vector<Property> left, const std::vector<Property>& right) {
  left.insert(left.end(), right.begin(), right.end());
  return left;
}

std::vector<Property> outcome() {
  return {{"mean_resident_bytes",
           described(of_type("number"), "active, dirty and muzzy; muzzy taken as not reclaimed")},
          {"peak_resident_bytes", of_type("integer")},
          {"purged_pages_per_s", of_type("number")},
          {"refaulted_pages_per_s", described(of_type("number"), "purged by MADV_DONTNEED and used again")},
          {"app_purge_cpu", described(of_type("number"), "shares of one CPU")},
          {"background_purge_cpu", of_type("number")},
          {"refault_cpu", of_type("number")},
          {"stall_p99_ns", described(or_null(of_type("number")),
                                     "of decay passes on application threads; null: there are none")},
          {"at_least", described(of_type("boolean"), "purges and refaults may be many more than said")}};
}

Json cost_origin() {
  return described(choice({"target", "host"}), "measured in the target, or tried on this host");
}

Json costs() {
  return object({{"madv_free_ns_per_page", of_type("number")},
                 {"madv_free_from", cost_origin()},
                 {"madv_dontneed_ns_per_page", of_type("number")},
                 {"madv_dontneed_from", cost_origin()},
                 {"refault_ns_per_page", of_type("number")},
                 {"refault_from", cost_origin()}});
}

Json model() {
  return object(
      {{"oversize_pages",
        described(or_null(of_type("integer")), "extents of this size and more are purged within free()")},
       {"changing_share",
        described(of_type("number"), "of the pages in use at most, those that are replaced by others")},
       {"touched_share",
        described(of_type("number"), "of the purged pages that are taken again, those that fault")},
       {"own_background",
        described(of_type("boolean"), "the program switched background threads on by itself")},
       {"background_ends_oversize", of_type("boolean")},
       {"max_background_threads", of_type("integer")},
       {"first_wake_schedules", of_type("boolean")},
       {"busy_chances_per_s",
        described(or_null(of_type("number")), "how often decay gets to run while pages move")},
       {"idle_chances_per_s", or_null(of_type("number"))}});
}

Json measured() {
  return object({{"seconds", of_type("number")},
                 {"mean_rss_bytes", of_type("number")},
                 {"max_rss_bytes", of_type("integer")},
                 {"mean_resident_bytes", described(of_type("number"), "active, dirty and muzzy")},
                 {"mean_allocated_bytes", or_null(of_type("number"))},
                 {"purged_pages", or_null(of_type("integer"))},
                 {"refaulted_pages", described(or_null(of_type("integer")), "within 60 s of their purge")},
                 {"app_purge_ns", of_type("number")},
                 {"background_purge_ns", of_type("number")}});
}

Json fit() {
  return object({{"simulated_resident_bytes", of_type("number")},
                 {"measured_resident_bytes", of_type("number")},
                 {"simulated_purged_pages", of_type("integer")},
                 {"measured_purged_pages", or_null(of_type("integer"))},
                 {"simulated_refaulted_pages", of_type("integer")},
                 {"measured_refaulted_pages", or_null(of_type("integer"))},
                 {"error", described(of_type("number"), "the largest relative difference")}});
}

Json rhythm() {
  Json schema = object({{"period_s", of_type("number")},
                        {"low_bytes", of_type("integer")},
                        {"high_bytes", of_type("integer")},
                        {"gives_back_decay_ms", or_null(of_type("integer"))},
                        {"keeps_decay_ms", or_null(of_type("integer"))}});
  schema["type"] = Json::array({"object", "null"});
  return schema;
}

Json decay_start() {
  return object({{"time_ms", or_null(of_type("integer"))},
                 {"epoch_ns", or_null(of_type("integer"))},
                 {"deadline_ns", or_null(of_type("integer"))},
                 {"nunpurged_pages", or_null(of_type("integer"))},
                 {"backlog_pages", array_of(of_type("integer"))}});
}

}  // namespace

Json series_schema() {
  const Json arena = object(
      {{"index", of_type("integer")},
       {"dirty_decay_ms", of_type("integer")},
       {"muzzy_decay_ms", of_type("integer")},
       {"dirty_start", decay_start()},
       {"muzzy_start", decay_start()},
       {"chances", described(of_type("string"),
                             "by times_ns: decay had a chance to run (1), had none (0), not known (?)")},
       {"asked", described(array_of(array_of(of_type("integer"))),
                           "pages of a block; how many blocks were asked for")},
       {"points",
        described(array_of(array_of(or_null(of_type("integer")))),
                  "index into times_ns; active, dirty, muzzy pages; purged from these, asked for, so far")}});
  return object(
      {{"type", constant("series")},
       {"pid", of_type("integer")},
       {"comm", of_type("string")},
       {"version", of_type("string")},
       {"conf_variable", of_type("string")},
       {"current", object(settings())},
       {"page_bytes", of_type("integer")},
       {"from_start", of_type("boolean")},
       {"unread_readings", of_type("integer")},
       {"costs", costs()},
       {"model", model()},
       {"measured", measured()},
       {"times_ns", array_of(of_type("integer"))},
       {"arenas", array_of(arena)},
       {"others", described(array_of(of_type("object")), "as this: the same program under other settings")}});
}

Json advice_schema() {
  const Json candidate =
      object(settings() + outcome() +
             std::vector<Property>{{"pareto", of_type("boolean")},
                                   {"least_refaulted_pages_per_s",
                                    described(of_type("number"), "as few as the recordings leave open")},
                                   {"most_refaulted_pages_per_s", of_type("number")}});
  const Json recommendation =
      object(std::vector<Property>{
                 {"goal", choice({"memory", "balanced", "latency"})},
                 {"keep", described(of_type("boolean"), "the present settings are the best for it")},
                 {"conf", of_type("string")}} +
             settings());
  return object({{"type", constant("advice")},
                 {"pid", of_type("integer")},
                 {"comm", of_type("string")},
                 {"version", or_null(of_type("string"))},
                 {"conf_variable", or_null(of_type("string"))},
                 {"window_ns", of_type("integer")},
                 {"period_ns", described(of_type("integer"), "between two readings")},
                 {"current", object(settings())},
                 {"measured", measured()},
                 {"costs", costs()},
                 {"model", model()},
                 {"fit", described(fit(), "the present settings, simulated and measured")},
                 {"candidates", array_of(candidate)},
                 {"recommendations", array_of(recommendation)},
                 {"futile", described(array_of(of_type("string")), "why decay tuning cannot help")},
                 {"rhythm", described(rhythm(), "batches")},
                 {"caveats", array_of(of_type("string"))}});
}

Json trial_schema() {
  Json measured_or_null = measured();
  measured_or_null["type"] = Json::array({"object", "null"});
  Json predicted = object(outcome() + std::vector<Property>{{"seconds", of_type("number")},
                                                            {"purged_pages", of_type("integer")},
                                                            {"refaulted_pages", of_type("integer")},
                                                            {"mean_rss_bytes", of_type("number")}});
  predicted["type"] = Json::array({"object", "null"});
  return object(
      std::vector<Property>{
          {"type", constant("trial")}, {"comm", of_type("string")}, {"conf", of_type("string")}} +
      settings() +
      std::vector<Property>{
          {"runs", of_type("integer")},
          {"exit_status", of_type("integer")},
          {"wall_s", of_type("number")},
          {"cpu_s", of_type("number")},
          {"rss_spread", described(of_type("number"), "of the runs' mean RSS, largest - smallest, relative")},
          {"refaulted_spread", or_null(of_type("number"))},
          {"measured", measured_or_null},
          {"predicted", predicted},
          {"caveats", array_of(of_type("string"))}});
}

}  // namespace jemtrace::render
