#pragma once

#include <cstdint>
#include <string>

#include "serve/exposition.hpp"

namespace jemtrace::serve {

std::string encode_text(const Exposition& exposition, bool openmetrics);
std::string encode_protobuf(const Exposition& exposition);

/// Shortest decimal that reads back as the same double; whole numbers without exponent up to 2^53.
void append_number(std::string& out, double value);

}  // namespace jemtrace::serve
