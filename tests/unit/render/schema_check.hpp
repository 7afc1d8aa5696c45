#pragma once

#include <algorithm>
#include <nlohmann/json.hpp>
#include <regex>
#include <string>

/// Just enough of JSON Schema 2020-12 for our own schema: $ref, oneOf, const, enum, type, minimum, pattern,
/// items, properties, required, additionalProperties. A keyword beyond these is an error, so that none is
/// ignored. Stricter than the standard in one way: a key that an object's `properties` does not name is an
/// error unless `additionalProperties` says what it is. That holds the renderer and the schema together.
namespace jemtrace::render {

class SchemaCheck {
 public:
  using Json = nlohmann::json;
  explicit SchemaCheck(Json schema) : root_(std::move(schema)) {}

  /// "" when valid, else where and why not.
  [[nodiscard]] std::string errors(const Json& line) const { return check(root_, line, "$"); }

 private:
  static bool has_type(const Json& value, const std::string& type) {
    return (type == "null" && value.is_null()) || (type == "integer" && value.is_number_integer()) ||
           (type == "number" && value.is_number()) || (type == "string" && value.is_string()) ||
           (type == "boolean" && value.is_boolean()) || (type == "object" && value.is_object()) ||
           (type == "array" && value.is_array());
  }

  static bool type_matches(const Json& types, const Json& value) {
    return types.is_string()
               ? has_type(value, types)
               : std::any_of(types.begin(), types.end(), [&](const Json& t) { return has_type(value, t); });
  }

  [[nodiscard]] std::string check(const Json& schema, const Json& value, const std::string& at) const {
    for (const auto& [keyword, rule] : schema.items()) {
      if (std::string error = check_keyword(schema, keyword, rule, value, at); !error.empty()) {
        return error;
      }
    }
    return value.is_object() ? check_keys(schema, value, at) : "";
  }

  [[nodiscard]] std::string check_keyword(const Json& schema, const std::string& keyword, const Json& rule,
                                          const Json& value, const std::string& at) const {
    if (keyword == "$ref") {
      return check(root_.at(Json::json_pointer(rule.get<std::string>().substr(1))), value, at);
    }
    if (keyword == "oneOf") {
      const auto matches =
          std::count_if(rule.begin(), rule.end(), [&](const Json& s) { return check(s, value, at).empty(); });
      return matches == 1 ? "" : at + ": matches " + std::to_string(matches) + " of oneOf" + hint(value);
    }
    if (keyword == "const") {
      return value == rule ? "" : at + ": is not " + rule.dump();
    }
    if (keyword == "enum") {
      return std::find(rule.begin(), rule.end(), value) != rule.end() ? ""
                                                                      : at + ": not in enum: " + value.dump();
    }
    if (keyword == "type") {
      return type_matches(rule, value) ? "" : at + ": is no " + rule.dump() + ": " + value.dump();
    }
    if (keyword == "minimum") {
      return !value.is_number() || value >= rule ? "" : at + ": below the minimum";
    }
    if (keyword == "pattern") {
      return !value.is_string() ||
                     std::regex_search(value.get<std::string>(), std::regex(rule.get<std::string>()))
                 ? ""
                 : at + ": does not match " + rule.dump();
    }
    if (keyword == "items") {
      return check_items(rule, value, at);
    }
    if (keyword == "required") {
      return check_required(rule, value, at);
    }
    static const char* const passive[] = {
        "properties", "additionalProperties", "description", "title", "$schema", "$defs"};
    const bool known = std::find(std::begin(passive), std::end(passive), keyword) != std::end(passive);
    return known ? "" : at + ": keyword " + keyword + " is not checked in " + schema.dump();
  }

  [[nodiscard]] std::string check_items(const Json& rule, const Json& value, const std::string& at) const {
    for (size_t i = 0; value.is_array() && i < value.size(); ++i) {
      if (std::string error = check(rule, value[i], at + '[' + std::to_string(i) + ']'); !error.empty()) {
        return error;
      }
    }
    return "";
  }

  static std::string check_required(const Json& rule, const Json& value, const std::string& at) {
    for (const Json& key : rule) {
      if (value.is_object() && !value.contains(key.get<std::string>())) {
        return at + ": lacks " + key.dump();
      }
    }
    return "";
  }

  [[nodiscard]] std::string check_keys(const Json& schema, const Json& value, const std::string& at) const {
    if (!schema.contains("properties") && !schema.contains("additionalProperties")) {
      return "";
    }
    const Json properties = schema.value("properties", Json::object());
    for (const auto& [key, member] : value.items()) {
      const std::string here = at + '.' + key;
      std::string error = here + ": is not in the schema";
      if (properties.contains(key)) {
        error = check(properties[key], member, here);
      } else if (schema.contains("additionalProperties")) {
        error = check(schema["additionalProperties"], member, here);
      }
      if (!error.empty()) {
        return error;
      }
    }
    return "";
  }

  /// oneOf says only that nothing fits: say what does not, for the definition that the line names.
  [[nodiscard]] std::string hint(const Json& value) const {
    if (!value.is_object() || !value.contains("type") || !root_["$defs"].contains(value["type"])) {
      return "";
    }
    return " (" + check(root_["$defs"][value["type"].get<std::string>()], value, "$") + ")";
  }

  Json root_;
};

}  // namespace jemtrace::render
