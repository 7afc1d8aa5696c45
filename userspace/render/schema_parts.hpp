#pragma once

#include <initializer_list>
#include <string>
#include <utility>
#include <vector>

#include "render/json_parts.hpp"

/// What the schemas of all kinds of lines are made of (JSON Schema 2020-12).
namespace jemtrace::render {

using Property = std::pair<std::string, Json>;

Json of_type(const char* type);
Json whole();
Json signed_whole();
Json string();
Json boolean();
Json constant(const char* value);
Json reference(const std::string& name);
Json array_of(Json items);
Json map_of(Json values);
Json hex_string();
/// Of that, or null: unknown.
Json or_null(Json schema);
Json described(Json schema, const char* text);
/// All keys are always there: what is unknown is null.
Json object(const std::vector<Property>& properties);
/// One of these words.
Json choice(std::initializer_list<const char*> values);
Json syscall_name();

/// One of the names of an enum's values from `first` to before `count`.
template <typename Enum>
Json names_of(unsigned first, unsigned count) {
  Json list = Json::array();
  for (unsigned i = first; i < count; ++i) {
    list.push_back(ledger::name(static_cast<Enum>(i)));
  }
  return {{"enum", list}};
}

/// An object with a `value` for each of the enum's first `count` values.
template <typename Enum>
Json object_by(unsigned count, const Json& value) {
  std::vector<Property> properties;
  for (unsigned i = 0; i < count; ++i) {
    properties.emplace_back(ledger::name(static_cast<Enum>(i)), value);
  }
  return object(properties);
}

}  // namespace jemtrace::render
