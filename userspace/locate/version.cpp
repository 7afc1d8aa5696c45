#include "locate/version.hpp"

#include <algorithm>
#include <charconv>
#include <limits>

#include "locate/strings.hpp"

namespace jemtrace::locate {
namespace {

// Checked against every tag: in all of that family and later, in none before. Compile-time options (prof,
// stats, hpa) do not remove them, as the option parser knows the names in any case.
constexpr Feature features[] = {
    {"lg_dirty_mult", Family::v4},
    {"muzzy_decay_ms", Family::v50},
    {"max_background_threads", Family::v51},
    {"oversize_threshold", Family::v52},
    {"trust_madvise", Family::v53},
    {"hpa_dirty_mult", Family::v53},
    {"process_madvise_max_batch", Family::v531},
    {"experimental_tcache_gc", Family::v531},
    // Whole, between NULs: other software pins memory too.
    {std::string_view("\0pinned_bytes\0", 14), Family::dev},
};

bool is_digit(char c) {
  return c >= '0' && c <= '9';
}
bool is_hex(char c) {
  return is_digit(c) || (c >= 'a' && c <= 'f');
}

/// Where the digits that end before `end` begin; `end` when there are none.
size_t digits_before(std::string_view text, size_t end) {
  size_t start = end;
  while (start > 0 && end - start < 8 && is_digit(text[start - 1])) {
    --start;
  }
  return start;
}

Family family_of_release(const Version& version) {
  if (version.major == 4 || version.major == 3) {
    return Family::v4;
  }
  if (version.major != 5) {
    return Family::unknown;
  }
  switch (version.minor) {
    case 0:
      return Family::v50;
    case 1:
      return Family::v51;
    case 2:
      return Family::v52;
    case 3:
      return version.patch == 0 ? Family::v53 : Family::v531;
    default:
      return Family::dev;
  }
}

/// 2: the same family; 1: the same generation of the format; 0: other software.
int agreement(const Version& version, Family family) {
  const Family release = family_of_release(version);
  if (!version.known() || release == Family::unknown) {
    return 0;
  }
  if (family == Family::unknown || release == family) {
    return 2;
  }
  return (release == Family::v4) == (family == Family::v4) ? 1 : 0;
}

uint64_t distance(uint64_t offset, const std::vector<uint64_t>& anchors) {
  uint64_t best = std::numeric_limits<uint64_t>::max();
  for (const uint64_t anchor : anchors) {
    best = std::min(best, anchor > offset ? anchor - offset : offset - anchor);
  }
  return best;
}

}  // namespace

const char* name(Family family) {
  switch (family) {
    case Family::unknown:
      return "unknown";
    case Family::v4:
      return "4.x";
    case Family::v50:
      return "5.0";
    case Family::v51:
      return "5.1";
    case Family::v52:
      return "5.2";
    case Family::v53:
      return "5.3.0";
    case Family::v531:
      return "5.3.1";
    case Family::dev:
      return "later than 5.3.1";
  }
  return "unknown";
}

std::span<const Feature> feature_strings() {
  return features;
}

std::string_view version_around(std::string_view text, size_t at) {
  const size_t commits = digits_before(text, at);
  size_t start = at;
  if (commits == at || commits == 0 || text[commits - 1] != '-') {
    return {};
  }
  size_t end_of_part = commits - 1;
  for (int part = 0; part < 3; ++part) {
    start = digits_before(text, end_of_part);
    if (start == end_of_part) {
      return {};
    }
    if (part < 2) {
      if (start == 0 || text[start - 1] != '.') {
        return {};
      }
      end_of_part = start - 1;
    }
  }
  size_t end = at + 2;
  while (end < text.size() && end - at < 64 && is_hex(text[end])) {
    ++end;
  }
  return end == at + 2 ? std::string_view{} : text.substr(start, end - start);
}

Version parse_version(std::string_view text) {
  const size_t at = text.find("-g");
  if (at == std::string_view::npos || version_around(text, at) != text) {
    return {};
  }
  Version version;
  int* const parts[] = {&version.major, &version.minor, &version.patch};
  const char* from = text.data();
  const char* const end = text.data() + text.size();
  for (int* part : parts) {
    const auto [next, error] = std::from_chars(from, end, *part);
    if (error != std::errc{} || next == end) {
      return {};
    }
    from = next + 1;
  }
  if (version.major == 0) {
    return {};
  }
  version.text = std::string(text);
  return version;
}

Family family_of_features(uint32_t found) {
  Family family = Family::unknown;
  for (size_t i = 0; i < std::size(features); ++i) {
    if ((found >> i & 1) != 0) {
      family = std::max(family, features[i].since);
    }
  }
  return family;
}

Version choose_version(const Strings& strings, Family family) {
  Version best;
  int best_agreement = 0;
  uint64_t best_distance = std::numeric_limits<uint64_t>::max();
  for (const Strings::Candidate& candidate : strings.versions) {
    Version version = parse_version(candidate.text);
    const int agrees = agreement(version, family);
    const uint64_t far = distance(candidate.offset, strings.anchors);
    if (agrees > best_agreement || (agrees > 0 && agrees == best_agreement && far < best_distance)) {
      best = std::move(version);
      best_agreement = agrees;
      best_distance = far;
    }
  }
  return best;
}

Family family_of(const Version& version, Family by_features) {
  return by_features == Family::unknown ? family_of_release(version) : by_features;
}

}  // namespace jemtrace::locate
