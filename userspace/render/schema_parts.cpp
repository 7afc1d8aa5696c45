#include "render/schema_parts.hpp"

namespace jemtrace::render {

Json of_type(const char* type) {
  return {{"type", type}};
}
Json whole() {
  return {{"type", "integer"}, {"minimum", 0}};
}
Json signed_whole() {
  return of_type("integer");
}
Json string() {
  return of_type("string");
}
Json boolean() {
  return of_type("boolean");
}
Json constant(const char* value) {
  return {{"const", value}};
}
Json reference(const std::string& name) {
  return {{"$ref", "#/$defs/" + name}};
}
Json array_of(Json items) {
  return {{"type", "array"}, {"items", std::move(items)}};
}
Json map_of(Json values) {
  return {{"type", "object"}, {"additionalProperties", std::move(values)}};
}
Json hex_string() {
  return {{"type", "string"}, {"pattern", "^0x[0-9a-f]+$"}};
}

Json or_null(Json schema) {
  if (schema.contains("type") && !schema.contains("enum")) {
    schema["type"] = Json::array({schema["type"], "null"});
    return schema;
  }
  if (schema.contains("enum")) {
    schema["enum"].push_back(nullptr);
    return schema;
  }
  return {{"oneOf", Json::array({std::move(schema), of_type("null")})}};
}

Json described(Json schema, const char* text) {
  schema["description"] = text;
  return schema;
}

Json object(const std::vector<Property>& properties) {
  Json schema = {{"type", "object"}, {"properties", Json::object()}, {"required", Json::array()}};
  for (const auto& [key, value] : properties) {
    schema["properties"][key] = value;
    schema["required"].push_back(key);
  }
  return schema;
}

Json choice(std::initializer_list<const char*> values) {
  Json list = Json::array();
  for (const char* value : values) {
    list.push_back(value);
  }
  return {{"enum", list}};
}

Json syscall_name() {
  return names_of<jt_syscall>(0, JT_SYSCALLS);
}

}  // namespace jemtrace::render
