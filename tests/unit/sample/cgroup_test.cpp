#include "sample/cgroup.hpp"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "sample/fields.hpp"
#include "sample/host.hpp"

namespace jemtrace::sample {
namespace {

namespace fs = std::filesystem;

TEST(Fields, a_counter_is_found_by_its_whole_name) {
  constexpr const char* text = "pglazyfreed 7\npglazyfree 5\nnone\n";
  EXPECT_EQ(counter(text, "pglazyfree"), 5u);
  EXPECT_EQ(counter(text, "pglazyfreed"), 7u);
  EXPECT_EQ(counter(text, "pglazy"), std::nullopt);
  EXPECT_EQ(counter(text, "none"), std::nullopt);
  EXPECT_EQ(counter("", "none"), std::nullopt);
}

TEST(Pressure, has_some_and_full) {
  const auto parsed = parse_pressure(
      "some avg10=1.50 avg60=0.30 avg300=0.00 total=123\nfull avg10=0.25 avg60=0.00 avg300=0.00 total=45\n");
  ASSERT_TRUE(parsed);
  EXPECT_DOUBLE_EQ(parsed->some_avg10, 1.5);
  EXPECT_DOUBLE_EQ(parsed->full_avg10, 0.25);
  EXPECT_EQ(parsed->some_total_us, 123u);
  EXPECT_EQ(parsed->full_total_us, 45u);
  EXPECT_FALSE(parse_pressure("some avg10=0.00\n"));
  EXPECT_FALSE(parse_pressure("some total=5\n"));
  EXPECT_FALSE(parse_pressure(""));
}

TEST(Cgroup, finds_its_hierarchy) {
  constexpr const char* mounts =
      "30 25 0:26 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
      "31 25 0:27 /docker/abc /sys/fs/cgroup/memory rw,nosuid shared:9 - cgroup cgroup rw,memory\n"
      "32 25 0:28 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw,nsdelegate\n";
  EXPECT_EQ(find_cgroup_mount(mounts, 1)->point, "/sys/fs/cgroup/memory");
  EXPECT_EQ(find_cgroup_mount(mounts, 1)->root, "/docker/abc");
  EXPECT_EQ(find_cgroup_mount(mounts, 2)->point, "/sys/fs/cgroup/unified");
  EXPECT_FALSE(find_cgroup_mount("31 25 0:27 / /x rw - cgroup cgroup rw,memory2\n", 1));
  EXPECT_FALSE(find_cgroup_mount("", 2));
  constexpr const char* membership = "5:cpu,memory:/a\n4:freezer:/b\n0::/c:d\n";
  EXPECT_EQ(find_cgroup_path(membership, 1), "/a");
  EXPECT_EQ(find_cgroup_path(membership, 2), "/c:d");
  EXPECT_EQ(find_cgroup_path("4:freezer:/b\n", 1), std::nullopt);
}

/// A /proc and a cgroup hierarchy of files.
class CgroupFiles : public ::testing::Test {
 protected:
  void SetUp() override {
    root_ = fs::temp_directory_path() / ("jemtrace-cgroup-" + std::to_string(::getpid()));
    fs::create_directories(root_ / "proc/self");
    fs::create_directories(root_ / "proc/42");
  }
  void TearDown() override { fs::remove_all(root_); }
  void write(const std::string& name, const std::string& text) const {
    fs::create_directories((root_ / name).parent_path());
    std::ofstream(root_ / name) << text;
  }
  [[nodiscard]] ProcRoot proc() const { return ProcRoot((root_ / "proc").string()); }
  fs::path root_;
};

TEST_F(CgroupFiles, version_2) {
  write("proc/self/mountinfo", "32 25 0:28 / " + (root_ / "cg").string() + " rw - cgroup2 cgroup2 rw\n");
  write("proc/42/cgroup", "0::/app\n");
  write("cg/app/memory.current", "1048576\n");
  write("cg/app/memory.max", "max\n");
  write("cg/app/memory.stat", "anon 4096\ninactive_file 8192\npglazyfree 3\npglazyfreed 2\n");
  write("cg/app/memory.pressure", "some avg10=2.00 avg60=0 avg300=0 total=9\n");
  const auto cgroup = read_cgroup(proc(), 42, CgroupMounts(proc()));
  ASSERT_TRUE(cgroup);
  EXPECT_EQ(cgroup->version, 2);
  EXPECT_TRUE(cgroup->unlimited);
  EXPECT_EQ(cgroup->usage_bytes, 1048576u);
  EXPECT_EQ(cgroup->limit_bytes, std::nullopt);
  EXPECT_EQ(cgroup->anon_bytes, 4096u);
  EXPECT_EQ(cgroup->inactive_file_bytes, 8192u);
  EXPECT_EQ(cgroup->pglazyfree, 3u);
  EXPECT_EQ(cgroup->pglazyfreed, 2u);
  EXPECT_EQ(cgroup->pressure->some_total_us, 9u);
}

TEST_F(CgroupFiles, a_limit_further_up_is_a_limit) {
  write("proc/self/mountinfo", "32 25 0:28 / " + (root_ / "cg").string() + " rw - cgroup2 cgroup2 rw\n");
  write("proc/42/cgroup", "0::/pod/app\n");
  write("cg/pod/app/memory.current", "1048576\n");
  write("cg/pod/app/memory.max", "max\n");
  write("cg/pod/memory.max", "8388608\n");
  const auto cgroup = read_cgroup(proc(), 42, CgroupMounts(proc()));
  EXPECT_EQ(cgroup->limit_bytes, 8388608u);
  EXPECT_FALSE(cgroup->unlimited);
  fs::remove(root_ / "cg/pod/memory.max");
  const auto unknown = read_cgroup(proc(), 42, CgroupMounts(proc()));
  EXPECT_EQ(unknown->limit_bytes, std::nullopt);
  EXPECT_FALSE(unknown->unlimited);
}

TEST_F(CgroupFiles, another_cgroup_with_a_name_that_begins_alike_is_not_its_root) {
  write("proc/self/mountinfo", "32 25 0:28 /pod " + (root_ / "cg").string() + " rw - cgroup2 cgroup2 rw\n");
  write("proc/42/cgroup", "0::/podium\n");
  write("cg/ium/memory.current", "1\n");
  EXPECT_FALSE(read_cgroup(proc(), 42, CgroupMounts(proc())));
}

TEST_F(CgroupFiles, version_1_in_a_container_whose_root_is_mounted) {
  write("proc/self/mountinfo",
        "31 25 0:27 /docker/abc " + (root_ / "mem").string() + " rw - cgroup cgroup rw,memory\n");
  write("proc/42/cgroup", "4:memory:/docker/abc/app\n0::/\n");
  write("mem/app/memory.usage_in_bytes", "2097152\n");
  write("mem/app/memory.stat",
        "rss 1\nhierarchical_memory_limit 9223372036854771712\ntotal_rss 4096\ntotal_inactive_file 8192\n");
  const auto cgroup = read_cgroup(proc(), 42, CgroupMounts(proc()));
  ASSERT_TRUE(cgroup);
  EXPECT_EQ(cgroup->version, 1);
  EXPECT_TRUE(cgroup->unlimited);
  EXPECT_EQ(cgroup->usage_bytes, 2097152u);
  EXPECT_EQ(cgroup->limit_bytes, std::nullopt);
  EXPECT_EQ(cgroup->anon_bytes, 4096u);
  EXPECT_FALSE(cgroup->pglazyfreed);
}

TEST_F(CgroupFiles, a_path_that_climbs_is_not_followed) {
  write("proc/self/mountinfo", "32 25 0:28 / " + (root_ / "cg/x").string() + " rw - cgroup2 cgroup2 rw\n");
  write("proc/42/cgroup", "0::/../app\n");
  write("cg/app/memory.current", "1048576\n");
  EXPECT_EQ(read_cgroup(proc(), 42, CgroupMounts(proc())).error().code, Errc::unsupported);
}

TEST_F(CgroupFiles, what_a_host_does_not_have_is_unknown) {
  const ledger::Host empty = read_host(proc(), (root_ / "sys").string());
  EXPECT_FALSE(empty.pglazyfree || empty.mem_total_bytes || empty.pressure || empty.nr_anon_partially_mapped);
  EXPECT_EQ(empty.thp, "");
  write("proc/vmstat", "pglazyfree 11\nthp_collapse_alloc 4\n");
  write("proc/meminfo", "MemTotal:       1024 kB\nMemAvailable:    512 kB\n");
  write("sys/kernel/mm/transparent_hugepage/enabled", "always [madvise] never\n");
  write("sys/kernel/mm/transparent_hugepage/hugepages-2048kB/stats/nr_anon_partially_mapped", "32\n");
  const ledger::Host host = read_host(proc(), (root_ / "sys").string());
  EXPECT_EQ(host.pglazyfree, 11u);
  EXPECT_EQ(host.thp_collapse_alloc, 4u);
  EXPECT_EQ(host.mem_total_bytes, 1u << 20);
  EXPECT_EQ(host.mem_available_bytes, 512u << 10);
  EXPECT_EQ(host.thp, "madvise");
  EXPECT_EQ(host.nr_anon_partially_mapped, 32u);
}

TEST(Host, word_in_brackets) {
  EXPECT_EQ(chosen_word("[always] madvise never\n"), "always");
  EXPECT_EQ(chosen_word("always"), "");
  EXPECT_EQ(chosen_word("] ["), "");
}

}  // namespace
}  // namespace jemtrace::sample
