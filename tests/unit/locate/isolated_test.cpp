#include "locate/isolated.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include "locate/debug_files.hpp"
#include "programs.hpp"

namespace jemtrace::locate::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

/// Programs of one build, with and without their symbols.
class IsolatedTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!build_program(folder_, program_)) {
      GTEST_SKIP() << "no C compiler or no libjemalloc.a";
    }
    options_.debug_root = folder_ / "debug";
  }

  Outcome isolated(const std::string& path) {
    const auto fd = open_file(path, O_RDONLY);
    looked_for_.clear();
    return analyse_isolated(fd->get(), path, options_, [&](const std::string& name, const Result<Fd>& file) {
      looked_for_.push_back((file ? "+" : "-") + name);
    });
  }
  /// Its child finds what we find.
  void expect_same(const std::string& path) {
    const auto fd = open_file(path, O_RDONLY);
    const auto ours = analyse(fd->get(), path, options_);
    const auto theirs = isolated(path);
    ASSERT_TRUE(ours && *ours);
    ASSERT_TRUE(theirs) << theirs.error().message();
    EXPECT_TRUE(encode(ours) == encode(theirs));
  }

  TempFolder folder_;
  std::string program_ = folder_ / "program";
  Options options_;
  std::vector<std::string> looked_for_;
};

TEST_F(IsolatedTest, finds_what_we_find) {
  expect_same(program_);
  EXPECT_THAT(looked_for_, IsEmpty());
}

TEST_F(IsolatedTest, gets_the_debug_file_of_its_build_id) {
  const std::string id = analyse_file(program_, options_)->build_id;
  const std::string place = options_.debug_root + "/.build-id/" + id.substr(0, 2);
  const std::string debug = place + "/" + id.substr(2) + ".debug";
  ASSERT_TRUE(run("mkdir -p " + place + " && objcopy --only-keep-debug " + program_ + " " + debug +
                  " && strip " + program_));
  expect_same(program_);
  EXPECT_THAT(looked_for_, ElementsAre("+" + debug));
}

TEST_F(IsolatedTest, gets_the_debug_file_of_its_link) {
  const std::string place = options_.debug_root + folder_.path();
  ASSERT_TRUE(run("mkdir -p " + place + "/.debug && objcopy --only-keep-debug " + program_ + " " + place +
                  "/.debug/p.debug && objcopy --strip-all --add-gnu-debuglink=" + place + "/.debug/p.debug " +
                  program_));
  expect_same(program_);
  ASSERT_EQ(looked_for_.size(), 3u);
  EXPECT_EQ(looked_for_[1], "-" + place + "/p.debug");
  EXPECT_EQ(looked_for_[2], "+" + place + "/.debug/p.debug");
  const auto image = isolated(program_);
  EXPECT_EQ((*image)->tier, Tier::symbols);
}

TEST_F(IsolatedTest, says_that_there_is_no_jemalloc) {
  const auto outcome = isolated("/bin/sh");
  ASSERT_TRUE(outcome) << outcome.error().message();
  EXPECT_FALSE(*outcome);
}

TEST_F(IsolatedTest, says_what_is_wrong_with_a_file) {
  const auto outcome = isolated("/etc/passwd");
  ASSERT_FALSE(outcome);
  EXPECT_EQ(outcome.error().code, Errc::malformed);
  EXPECT_EQ(outcome.error().what, "/etc/passwd is not a sound ELF file: no ELF header");
  EXPECT_FALSE(isolated("/dev/null"));
}

TEST(DebugPaths, are_those_of_the_image_and_no_others) {
  const Options options{.debug_root = "/debug"};
  const auto may = [&](std::string_view path) {
    return may_be_debug_file_of(path, "/usr/bin/prog", options);
  };
  EXPECT_TRUE(may("/debug/.build-id/ab/cdef0123.debug"));
  EXPECT_TRUE(may("/debug/usr/bin/prog.debug"));
  EXPECT_TRUE(may("/debug/usr/bin/.debug/prog.debug"));
  for (const char* path :
       {"", "/etc/shadow", "/debug", "/debug/usr/bin/", "/debug/usr/bin/..", "/debug/usr/bin/../x",
        "/debug/usr/bin/.debug/", "/debug/usr/bin/.debug/..", "/debug/usr/bin/.debug/a/b",
        "/debug/usr/lib/prog.debug", "/debug/.build-id/ab/../x.debug", "/debug/.build-id/ab/cd.sys",
        "/debug/.build-id/AB/cdef.debug", "/debug/.build-id/../etc/x.debug", "/debug/.build-id/abc/def.debug",
        "/debug/.build-id/ab/.debug", "/debug/../etc/shadow"}) {
    EXPECT_FALSE(may(path)) << path;
  }
  EXPECT_FALSE(may(std::string_view("/debug/usr/bin/a\0b", 18)));
  EXPECT_FALSE(may_be_debug_file_of("/debug/x/../etc/shadow", "/x/../etc/passwd", options));
}

}  // namespace
}  // namespace jemtrace::locate::testing
