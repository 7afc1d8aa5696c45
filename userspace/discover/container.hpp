#pragma once

#include <optional>
#include <string>
#include <string_view>

/// Which container a cgroup is, as its path tells: no runtime is asked.
namespace jemtrace::discover {

struct Container {
  std::string runtime;  // "docker", "containerd", "cri-o", "podman"; empty: the path does not tell
  std::string id;       // the first 12 digits, as the runtimes' own tools show it
  std::string pod_uid;  // "0f4c2d1e-...", as the Kubernetes API spells it; empty: in no pod
};

/// From a path such as
///   /kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod0f4c_....slice/cri-containerd-64HEX.scope
///   /kubepods/besteffort/pod0f4c.../64HEX     /docker/64HEX     /system.slice/docker-64HEX.scope
///   /machine.slice/libpod-64HEX.scope/container
/// The innermost container counts. nullopt: in none. What is not exactly so is none: any process may make
/// cgroups with names of its choice below its own, so this is a label and no proof.
std::optional<Container> container_of(std::string_view cgroup);

}  // namespace jemtrace::discover
