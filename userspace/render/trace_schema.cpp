#include <vector>

#include "render/schema_parts.hpp"
#include "render/schemas.hpp"

/// The schemas of what a trace prints as it goes, its targets and their images with it; its end:
/// summary_schema.cpp.
namespace jemtrace::render {
namespace {

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

Json cause() {
  return or_null(names_of<jt_cause>(1, JT_CAUSES));
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

}  // namespace

std::vector<Property> trace_definitions() {
  return {{"setting", setting()}, {"states", states()}};
}

Json header_schema() {
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

Json target_schema() {
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

Json image_schema() {
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

Json transition_schema() {
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

Json sweep_schema() {
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

Json interval_schema() {
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

}  // namespace jemtrace::render
