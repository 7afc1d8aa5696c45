#include "discover/container.hpp"

#include <algorithm>
#include <array>

namespace jemtrace::discover {
namespace {

constexpr size_t full_id = 64, shown_id = 12;

struct Prefix {
  std::string_view text, runtime;
};
// systemd's scopes, as each runtime names them.
constexpr std::array<Prefix, 5> scopes = {{{"docker-", "docker"},
                                           {"cri-containerd-", "containerd"},
                                           {"nerdctl-", "containerd"},
                                           {"crio-", "cri-o"},
                                           {"libpod-", "podman"}}};
// Parents in the layout without systemd.
constexpr std::array<Prefix, 3> parents = {
    {{"docker", "docker"}, {"libpod_parent", "podman"}, {"actions_job", "docker"}}};

bool hex(std::string_view text) {
  return std::all_of(text.begin(), text.end(),
                     [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); });
}

bool full(std::string_view id) {
  return id.size() == full_id && hex(id);
}

bool strip_prefix(std::string_view& text, std::string_view prefix) {
  const bool there = text.substr(0, prefix.size()) == prefix;
  text.remove_prefix(there ? prefix.size() : 0);
  return there;
}

bool strip_suffix(std::string_view& text, std::string_view suffix) {
  const bool there = text.size() >= suffix.size() && text.substr(text.size() - suffix.size()) == suffix;
  text.remove_suffix(there ? suffix.size() : 0);
  return there;
}

/// 8-4-4-4-12 digits with systemd's '_' for '-', or the 32 digits of a static pod.
std::string pod_uid(std::string_view text) {
  std::string uid(text);
  if (uid.size() == 32 && hex(uid)) {
    return uid;
  }
  if (uid.size() != 36) {
    return {};
  }
  std::replace(uid.begin(), uid.end(), '_', '-');
  for (size_t i = 0; i < uid.size(); ++i) {
    const bool dash = i == 8 || i == 13 || i == 18 || i == 23;
    if (dash ? uid[i] != '-' : !hex(std::string_view(uid).substr(i, 1))) {
      return {};
    }
  }
  return uid;
}

/// "pod<uid>", or the slice "kubepods[-besteffort|-burstable]-pod<uid>.slice".
std::string pod_of(std::string_view part) {
  if (strip_prefix(part, "pod")) {
    return pod_uid(part);
  }
  if (!strip_suffix(part, ".slice") || !strip_prefix(part, "kubepods-")) {
    return {};
  }
  if (!strip_prefix(part, "besteffort-")) {
    strip_prefix(part, "burstable-");
  }
  return strip_prefix(part, "pod") ? pod_uid(part) : std::string();
}

std::optional<Container> from_part(std::string_view part, std::string_view parent) {
  if (full(part)) {
    const auto known = std::find_if(parents.begin(), parents.end(),
                                    [&](const Prefix& prefix) { return prefix.text == parent; });
    return Container{.runtime = std::string(known == parents.end() ? "" : known->runtime),
                     .id = std::string(part.substr(0, shown_id)),
                     .pod_uid = {}};
  }
  strip_suffix(part, ".scope");
  for (const Prefix& scope : scopes) {
    std::string_view id = part;
    if (strip_prefix(id, scope.text) && full(id)) {
      return Container{
          .runtime = std::string(scope.runtime), .id = std::string(id.substr(0, shown_id)), .pod_uid = {}};
    }
  }
  return std::nullopt;
}

}  // namespace

std::optional<Container> container_of(std::string_view cgroup) {
  std::optional<Container> found;
  std::string_view parent;
  std::string pod;
  while (!cgroup.empty()) {
    const size_t slash = std::min(cgroup.find('/'), cgroup.size());
    const std::string_view part = cgroup.substr(0, slash);
    cgroup.remove_prefix(std::min(slash + 1, cgroup.size()));
    if (part.empty()) {
      continue;
    }
    if (auto here = from_part(part, parent)) {
      found = std::move(here);
      found->pod_uid = pod;
    } else if (std::string uid = pod_of(part); !uid.empty()) {
      pod = std::move(uid);
    }
    parent = part;
  }
  return found;
}

}  // namespace jemtrace::discover
