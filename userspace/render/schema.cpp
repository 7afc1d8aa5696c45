#include "render/output.hpp"
#include "render/schema_parts.hpp"
#include "render/schemas.hpp"

/// The NDJSON contract, written down beside ndjson.cpp; the unit tests hold the two together. Objects stay
/// open: a newer jemtrace may add keys, and its lines should still validate against the schema that a
/// consumer has kept.
namespace jemtrace::render {

std::string json_schema() {
  const std::vector<Property> lines = {
      {"header", header_schema()},
      {"target", target_schema()},
      {"transition", transition_schema()},
      {"sweep", sweep_schema()},
      {"interval", interval_schema()},
      {"summary", summary_schema()},
      {"image", image_schema()},
      {"stats", stats_schema()},
      {"check", check_schema()},
      {"finding", finding_schema()},
      {"diagnosis", diagnosis_schema()},
      {"flush", flush_schema()},
      {"merged", merged_schema()},
      {"merged_run", merged_run_schema()},
      {"merged_group", merged_group_schema()},
      {"series", series_schema()},
      {"advice", advice_schema()},
      {"trial", trial_schema()},
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
  for (const auto& shared : {summary_definitions(), trace_definitions(), report_definitions()}) {
    for (const auto& [name, definition] : shared) {
      schema["$defs"][name] = definition;
    }
  }
  return schema.dump(2) + '\n';
}

}  // namespace jemtrace::render
