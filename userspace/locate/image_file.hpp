#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "locate/image.hpp"
#include "util/result.hpp"

/// An Image as bytes: what the child that looked at a file hands back, and what the cache keeps. Never leaves
/// the host, never outlives the build that wrote it.
namespace jemtrace::locate {

inline constexpr size_t max_encoded_image = size_t{16} << 20;

/// What came of looking at a file: an image, no jemalloc, or why it could not be told.
using Outcome = Result<std::optional<Image>>;

std::string encode(const Outcome& outcome);

/// The same from bytes that nobody vouches for. nullopt: they are damaged. What comes back has every number
/// in its range and no control character in a string.
std::optional<Outcome> decode(std::string_view bytes);

}  // namespace jemtrace::locate
