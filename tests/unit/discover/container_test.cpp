#include "discover/container.hpp"

#include <gtest/gtest.h>

namespace jemtrace::discover {
namespace {

const std::string id = "4fa6e0f0c6786287e131c3852c58a2e01cc697a68231826813597e4994f1d6e2";
const std::string uid = "0f4c2d1e-5b6a-4c3d-9e8f-a1b2c3d4e5f6";
const std::string slice_uid = "0f4c2d1e_5b6a_4c3d_9e8f_a1b2c3d4e5f6";

std::string words(const std::string& cgroup) {
  const auto found = container_of(cgroup);
  return found ? found->runtime + "|" + found->id + "|" + found->pod_uid : "none";
}

TEST(ContainerOf, knows_the_layouts_of_the_runtimes) {
  EXPECT_EQ(words("/docker/" + id), "docker|4fa6e0f0c678|");
  EXPECT_EQ(words("/system.slice/docker-" + id + ".scope"), "docker|4fa6e0f0c678|");
  EXPECT_EQ(words("/machine.slice/libpod-" + id + ".scope/container"), "podman|4fa6e0f0c678|");
  EXPECT_EQ(words("/libpod_parent/libpod-" + id), "podman|4fa6e0f0c678|");
  EXPECT_EQ(words("/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-" + id + ".scope"),
            "podman|4fa6e0f0c678|");
  EXPECT_EQ(words("/system.slice/nerdctl-" + id + ".scope"), "containerd|4fa6e0f0c678|");
  EXPECT_EQ(words("/default/" + id), "|4fa6e0f0c678|");  // containerd without systemd does not say so
}

TEST(ContainerOf, knows_pods_by_either_driver) {
  const std::string burstable =
      "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod" + slice_uid + ".slice/";
  EXPECT_EQ(words(burstable + "cri-containerd-" + id + ".scope"), "containerd|4fa6e0f0c678|" + uid);
  EXPECT_EQ(words(burstable + "crio-" + id + ".scope"), "cri-o|4fa6e0f0c678|" + uid);
  EXPECT_EQ(words("/kubepods.slice/kubepods-pod" + slice_uid + ".slice/docker-" + id + ".scope"),
            "docker|4fa6e0f0c678|" + uid);
  EXPECT_EQ(words("/kubepods/besteffort/pod" + uid + "/" + id), "|4fa6e0f0c678|" + uid);
  EXPECT_EQ(words("/kubepods/pod" + std::string(32, 'a') + "/" + id),
            "|4fa6e0f0c678|" + std::string(32, 'a'));
}

TEST(ContainerOf, takes_the_innermost) {
  const std::string inner(64, 'b');
  EXPECT_EQ(words("/docker/" + id + "/kubepods/burstable/pod" + uid + "/" + inner), "|bbbbbbbbbbbb|" + uid);
  EXPECT_EQ(words("/docker/" + id + "/system.slice/nginx.service"), "docker|4fa6e0f0c678|");
}

TEST(ContainerOf, takes_nothing_else_for_one) {
  for (const std::string& cgroup :
       {std::string(), std::string("/"), std::string("/system.slice/redis.service"),
        "/docker/" + id.substr(1), "/docker/" + id + "0", "/docker/" + std::string(64, 'g'),
        "/docker/" + std::string(64, 'A'), "/system.slice/docker-" + id + ".scope.d",
        std::string("/system.slice/docker-.scope"), "/kubepods/pod" + uid, "/docker-" + id + "-x.scope",
        std::string(100000, '/'), std::string(100000, 'a'), "/\x1b[31m" + id, std::string(64, '\0')}) {
    EXPECT_EQ(words(cgroup), "none") << cgroup.substr(0, 100);
  }
  EXPECT_EQ(words("/kubepods/pod" + uid.substr(1) + "/" + id),
            "|4fa6e0f0c678|");  // a container, in no pod we know
  EXPECT_EQ(words("/kubepods/pod../" + id), "|4fa6e0f0c678|");
  EXPECT_EQ(words("/x/pod0f4c2d1e-5b6a-4c3d-9e8f-a1b2c3d4e5f\"/" + id), "|4fa6e0f0c678|");
}

}  // namespace
}  // namespace jemtrace::discover
