#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "locate/image.hpp"

namespace jemtrace::locate {

struct Strings;

/// Which generation of the internals it is: what decides about names, arguments and layouts. Ordered.
enum class Family { unknown, v4, v50, v51, v52, v53, v531, dev };

const char* name(Family family);

/// A string that first appears in a family: an option, or a name in the mallctl tree.
struct Feature {
  std::string_view text;
  Family since;
};
std::span<const Feature> feature_strings();

/// "5.3.0-0-g54eaed1d8b56" to a Version; unknown for "0.0.0-0-g000000missing_version_try_git_fetch_tags" and
/// all that does not look like one. The gid may be short: Redis builds itself a "5.3.0-0-g0".
Version parse_version(std::string_view text);

/// The version string around the "-g" at `at`: [0-9]+.[0-9]+.[0-9]+-[0-9]+-g[0-9a-f]+. Empty when there is
/// none.
std::string_view version_around(std::string_view text, size_t at);

/// From the strings that only newer ones have. unknown: not even 4.x.
Family family_of_features(uint32_t features);

/// The version among the candidates of a file, of which some may belong to other software: one that agrees
/// with the features, and of these the one nearest to jemalloc's option names.
Version choose_version(const Strings& strings, Family family);

/// The family when version and features are put together: features count, a git description lags behind them.
Family family_of(const Version& version, Family by_features);

}  // namespace jemtrace::locate
