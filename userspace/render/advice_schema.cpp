#include <utility>
#include <vector>

#include "render/json_parts.hpp"

/// The schema of what advise and sweep print, beside advice_json.cpp.
namespace jemtrace::render {
namespace {

using Property = std::pair<const char*, Json>;

/// All keys are always there: what is unknown is null.
Json object(const std::vector<Property>& properties) {
  Json schema = {{"type", "object"}, {"properties", Json::object()}, {"required", Json::array()}};
  for (const auto& [key, value] : properties) {
    schema["properties"][key] = value;
    schema["required"].push_back(key);
  }
  return schema;
}

Json of(const char* type) {
  return {{"type", type}};
}
Json or_null(const char* type) {
  return {{"type", Json::array({type, "null"})}};
}
Json array_of(Json items) {
  return {{"type", "array"}, {"items", std::move(items)}};
}
Json constant(const char* value) {
  return {{"const", value}};
}
Json described(Json schema, const char* text) {
  schema["description"] = text;
  return schema;
}
Json one_of(std::initializer_list<const char*> values) {
  Json list = Json::array();
  for (const char* value : values) {
    list.push_back(value);
  }
  return {{"enum", list}};
}

std::vector<Property> settings() {
  return {{"dirty_decay_ms", described(of("integer"), "-1: never, 0: at once")},
          {"muzzy_decay_ms", of("integer")},
          {"background_thread", of("boolean")}};
}

std::vector<Property> operator+(std::vector<Property> left, const std::vector<Property>& right) {
  left.insert(left.end(), right.begin(), right.end());
  return left;
}

std::vector<Property> outcome() {
  return {{"mean_resident_bytes",
           described(of("number"), "active, dirty and muzzy; muzzy taken as not reclaimed")},
          {"peak_resident_bytes", of("integer")},
          {"purged_pages_per_s", of("number")},
          {"refaulted_pages_per_s", described(of("number"), "purged by MADV_DONTNEED and used again")},
          {"app_purge_cpu", described(of("number"), "shares of one CPU")},
          {"background_purge_cpu", of("number")},
          {"refault_cpu", of("number")},
          {"stall_p99_ns",
           described(or_null("number"), "of decay passes on application threads; null: there are none")},
          {"at_least", described(of("boolean"), "purges and refaults may be many more than said")}};
}

Json cost_origin() {
  return described(one_of({"target", "host"}), "measured in the target, or tried on this host");
}

Json costs() {
  return object({{"madv_free_ns_per_page", of("number")},
                 {"madv_free_from", cost_origin()},
                 {"madv_dontneed_ns_per_page", of("number")},
                 {"madv_dontneed_from", cost_origin()},
                 {"refault_ns_per_page", of("number")},
                 {"refault_from", cost_origin()}});
}

Json model() {
  return object(
      {{"extent_pages", described(of("number"), "mean size of a purged extent")},
       {"oversize_share", described(of("number"), "of the freed pages, purged within free()")},
       {"touched_share",
        described(of("number"), "of the purged pages that are taken again, those that fault")},
       {"own_background", described(of("boolean"), "the program switched background threads on by itself")},
       {"background_ends_oversize", of("boolean")},
       {"max_background_threads", of("integer")},
       {"first_wake_schedules", of("boolean")},
       {"busy_chances_per_s", described(or_null("number"), "how often decay gets to run while pages move")},
       {"idle_chances_per_s", or_null("number")}});
}

Json measured() {
  return object({{"seconds", of("number")},
                 {"mean_rss_bytes", of("number")},
                 {"max_rss_bytes", of("integer")},
                 {"mean_resident_bytes", described(of("number"), "active, dirty and muzzy")},
                 {"mean_allocated_bytes", or_null("number")},
                 {"purged_pages", or_null("integer")},
                 {"refaulted_pages", described(or_null("integer"), "within 60 s of their purge")},
                 {"app_purge_ns", of("number")},
                 {"background_purge_ns", of("number")}});
}

Json fit() {
  return object({{"simulated_resident_bytes", of("number")},
                 {"measured_resident_bytes", of("number")},
                 {"simulated_purged_pages", of("integer")},
                 {"measured_purged_pages", or_null("integer")},
                 {"simulated_refaulted_pages", of("integer")},
                 {"measured_refaulted_pages", or_null("integer")},
                 {"error", described(of("number"), "the largest relative difference")}});
}

Json rhythm() {
  Json schema = object({{"period_s", of("number")},
                        {"low_bytes", of("integer")},
                        {"high_bytes", of("integer")},
                        {"gives_back_decay_ms", or_null("integer")},
                        {"keeps_decay_ms", or_null("integer")}});
  schema["type"] = Json::array({"object", "null"});
  return schema;
}

Json decay_start() {
  return object({{"time_ms", or_null("integer")},
                 {"epoch_ns", or_null("integer")},
                 {"deadline_ns", or_null("integer")},
                 {"nunpurged_pages", or_null("integer")},
                 {"backlog_pages", array_of(of("integer"))}});
}

}  // namespace

Json series_schema() {
  const Json arena = object(
      {{"index", of("integer")},
       {"dirty_decay_ms", of("integer")},
       {"muzzy_decay_ms", of("integer")},
       {"dirty_start", decay_start()},
       {"muzzy_start", decay_start()},
       {"block_pages", described(or_null("number"), "mean size of what was asked for")},
       {"points",
        described(array_of(array_of(or_null("integer"))),
                  "index into times_ns; active, dirty, muzzy pages; purged from these, asked for, so far")}});
  return object({{"type", constant("series")},
                 {"pid", of("integer")},
                 {"comm", of("string")},
                 {"version", of("string")},
                 {"conf_variable", of("string")},
                 {"current", object(settings())},
                 {"page_bytes", of("integer")},
                 {"from_start", of("boolean")},
                 {"unread_readings", of("integer")},
                 {"costs", costs()},
                 {"model", model()},
                 {"measured", measured()},
                 {"times_ns", array_of(of("integer"))},
                 {"arenas", array_of(arena)}});
}

Json advice_schema() {
  const Json candidate = object(settings() + outcome() + std::vector<Property>{{"pareto", of("boolean")}});
  const Json recommendation = object(
      std::vector<Property>{{"goal", one_of({"memory", "balanced", "latency"})},
                            {"keep", described(of("boolean"), "the present settings are the best for it")},
                            {"conf", of("string")}} +
      settings());
  return object({{"type", constant("advice")},
                 {"pid", of("integer")},
                 {"comm", of("string")},
                 {"version", or_null("string")},
                 {"conf_variable", or_null("string")},
                 {"window_ns", of("integer")},
                 {"period_ns", described(of("integer"), "between two readings")},
                 {"current", object(settings())},
                 {"measured", measured()},
                 {"costs", costs()},
                 {"model", model()},
                 {"fit", described(fit(), "the present settings, simulated and measured")},
                 {"candidates", array_of(candidate)},
                 {"recommendations", array_of(recommendation)},
                 {"futile", described(array_of(of("string")), "why decay tuning cannot help")},
                 {"rhythm", described(rhythm(), "batches")},
                 {"caveats", array_of(of("string"))}});
}

Json trial_schema() {
  Json measured_or_null = measured();
  measured_or_null["type"] = Json::array({"object", "null"});
  Json predicted = object(outcome() + std::vector<Property>{{"seconds", of("number")},
                                                            {"purged_pages", of("integer")},
                                                            {"refaulted_pages", of("integer")},
                                                            {"mean_rss_bytes", of("number")}});
  predicted["type"] = Json::array({"object", "null"});
  return object(
      std::vector<Property>{{"type", constant("trial")}, {"comm", of("string")}, {"conf", of("string")}} +
      settings() +
      std::vector<Property>{
          {"runs", of("integer")},
          {"exit_status", of("integer")},
          {"wall_s", of("number")},
          {"cpu_s", of("number")},
          {"rss_spread", described(of("number"), "of the runs' mean RSS, largest - smallest, relative")},
          {"measured", measured_or_null},
          {"predicted", predicted},
          {"caveats", array_of(of("string"))}});
}

}  // namespace jemtrace::render
