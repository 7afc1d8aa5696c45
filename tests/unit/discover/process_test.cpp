#include "discover/process.hpp"

#include <gtest/gtest.h>

#include "discover/selection.hpp"

namespace jemtrace::discover {
namespace {

TEST(ParseStat, finds_the_comm_between_its_outermost_parentheses) {
  const auto stat = parse_stat(
      "42 (a) (b) S 1 42 42 0 -1 4194560 100 0 0 0 1 2 0 0 20 0 1 0 12345 1000 200 18446744073709551615 1 1");
  ASSERT_TRUE(stat);
  EXPECT_EQ(stat->comm, "a) (b");
  EXPECT_EQ(stat->start_ticks, 12345U);
}

TEST(ParseStat, refuses_short_lines) {
  for (const char* text : {"", "42", "42 (x", "42 (x) S 1 2 3", ")("}) {
    EXPECT_FALSE(parse_stat(text)) << text;
  }
}

TEST(ParseCgroup, prefers_the_memory_controller_of_version_1) {
  EXPECT_EQ(parse_cgroup("12:pids:/p\n5:cpu,memory:/m/x\n0::/v2\n"), "/m/x");
}

TEST(ParseCgroup, takes_version_2_otherwise) {
  EXPECT_EQ(parse_cgroup("1:name=systemd:/s\n0::/a.slice/b:c\n"), "/a.slice/b:c");
}

TEST(ParseUid, takes_the_real_one) {
  EXPECT_EQ(parse_uid("Name:\tx\nUid:\t1000\t0\t0\t0\n"), 1000U);
}

Process process(pid_t pid, const std::string& comm, const std::string& exe, const std::string& cgroup,
                uid_t uid) {
  Process p;
  p.pid = pid;
  p.comm = comm;
  p.exe = exe;
  p.cgroup = cgroup;
  p.uid = uid;
  return p;
}

TEST(Selection, without_any_wish_takes_all) {
  EXPECT_TRUE(Selection{}.matches(process(1, "a", "/a", "/", 0)));
}

TEST(Selection, adds_up_its_kinds) {
  Selection selection;
  selection.pids = {7};
  selection.name_globs = {"redis*"};
  selection.cgroups = {"/web"};
  selection.users = {33};
  EXPECT_TRUE(selection.matches(process(7, "x", "/x", "/", 0)));
  EXPECT_TRUE(selection.matches(process(8, "redis-server", "/x", "/", 0)));
  EXPECT_TRUE(selection.matches(process(8, "io_thd", "/usr/bin/redis-server", "/", 0)));
  EXPECT_TRUE(selection.matches(process(8, "x", "/x", "/web/api", 0)));
  EXPECT_TRUE(selection.matches(process(8, "x", "/x", "/", 33)));
  EXPECT_FALSE(selection.matches(process(8, "x", "/x", "/website", 0)));
}

}  // namespace
}  // namespace jemtrace::discover
