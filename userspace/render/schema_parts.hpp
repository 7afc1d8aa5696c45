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

}  // namespace jemtrace::render
