#include "locate/image.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "programs.hpp"

namespace jemtrace::locate::testing {
namespace {

using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

TEST(AnalyseLibrary, recovers_the_functions_of_a_stripped_library) {
  if (!std::filesystem::exists(library)) {
    GTEST_SKIP() << "no " << library;
  }
  const auto image = analyse_file(library, {.debug_root = "/nonexistent"});
  ASSERT_TRUE(image);
  EXPECT_EQ(image->tier, Tier::recovered);
  EXPECT_EQ(image->linkage, Linkage::shared);
  EXPECT_EQ(image->version.major, 5);
  EXPECT_TRUE(image->version.text.starts_with("5."));
  EXPECT_EQ(image->build_id.size(), 40u);
  EXPECT_EQ(image->symbol_prefix, "");
  EXPECT_EQ(image->conf_variable(), "MALLOC_CONF");
  EXPECT_FALSE(image->musl);
  EXPECT_GT(image->text.size, 100000u);
  EXPECT_EQ(image->exe_code_vaddr, image->text.vaddr);
  EXPECT_GT(image->call_sites.size(), 100u);
  EXPECT_EQ(image->probes.size(), 2u);
  EXPECT_NE(image->cache_state_offset, 0u);
  EXPECT_THAT(image->notes, Contains(HasSubstr("stripped")));
  EXPECT_THAT(image->missing, IsEmpty());
  for (const FoundRole& found : image->roles) {
    EXPECT_EQ(found.found_by, "recovered");
    EXPECT_GE(found.evidence.size(), 2u) << found.role;
  }
}

TEST(MayHoldJemalloc, is_false_for_what_has_none) {
  for (const char* path : {"/bin/sh", "/usr/lib/x86_64-linux-gnu/libc.so.6", "/etc/passwd",
                           TEST_SOURCES "/locate/image_test.cpp"}) {
    const auto fd = open_file(path, O_RDONLY);
    ASSERT_TRUE(fd) << path;
    const auto may = may_hold_jemalloc(fd->get());
    ASSERT_TRUE(may) << path;
    EXPECT_FALSE(*may) << path;
    EXPECT_FALSE(analyse(fd->get(), path).value_or(std::nullopt)) << path;
  }
}

TEST(MayHoldJemalloc, fails_beyond_the_size_limit) {
  const auto fd = open_file("/bin/sh", O_RDONLY);
  const auto may = may_hold_jemalloc(fd->get(), {.max_file_size = 1000});
  ASSERT_FALSE(may);
  EXPECT_EQ(may.error().code, Errc::too_large);
}

/// A program with libjemalloc.a in it, and what is known about that.
void expect_all_symbols(const Image& image, const std::string& found_by) {
  EXPECT_EQ(image.tier, Tier::symbols);
  EXPECT_EQ(image.linkage, Linkage::static_linked);
  EXPECT_TRUE(image.version.known());
  EXPECT_THAT(image.missing, IsEmpty());
  EXPECT_GT(image.call_sites.size(), 500u);
  EXPECT_NE(image.cache_state_offset, 0u);
  ASSERT_NE(role(image, "ecache_evict"), nullptr);
  EXPECT_EQ(role(image, "ecache_evict")->symbol, "je_ecache_evict");
  EXPECT_EQ(role(image, "ecache_evict")->found_by, found_by);
  ASSERT_NE(role(image, "pac_decay_to_limit"), nullptr);
  EXPECT_EQ(role(image, "pac_decay_to_limit")->symbol, "pac_decay_to_limit.part.0");
  const ProbeSite* sweep = probe(image, JT_ROLE_SWEEP);
  ASSERT_NE(sweep, nullptr);
  EXPECT_EQ(sweep->cost, CostClass::emulated);
  EXPECT_EQ(sweep->offset, role(image, "pac_decay_to_limit")->offset);
  EXPECT_THAT(sweep->instruction, HasSubstr("push"));
  EXPECT_EQ(sweep->site.cache_arg[0], 5);
  EXPECT_EQ(sweep->site.cache_arg[1], 4);
  ASSERT_NE(probe(image, JT_ROLE_EVICT), nullptr);
  EXPECT_EQ(probe(image, JT_ROLE_EVICT)->site.cache_arg[0], 4);
}

class ProgramTest : public ::testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    if (!build_program(folder_, program_, GetParam())) {
      GTEST_SKIP() << "no C compiler or no libjemalloc.a";
    }
    options_.debug_root = folder_ / "debug";
  }

  void expect_same_as_unstripped(const Image& image, const std::string& found_by) {
    const auto whole = analyse_file(program_, options_);
    ASSERT_TRUE(whole);
    expect_all_symbols(image, found_by);
    ASSERT_EQ(image.call_sites.size(), whole->call_sites.size());
    for (size_t i = 0; i < image.call_sites.size(); ++i) {
      EXPECT_EQ(image.call_sites[i].return_offset, whole->call_sites[i].return_offset);
      EXPECT_EQ(std::memcmp(&image.call_sites[i].site, &whole->call_sites[i].site, sizeof(jt_site)), 0);
    }
  }

  TempFolder folder_;
  std::string program_ = folder_ / "program";
  Options options_;
};

TEST_P(ProgramTest, has_all_by_its_symbols) {
  const auto image = analyse_file(program_, options_);
  ASSERT_TRUE(image);
  expect_all_symbols(*image, "symtab");
}

TEST_P(ProgramTest, knows_the_frame_of_each_call_site) {
  const auto image = analyse_file(program_, options_);
  ASSERT_TRUE(image);
  for (const CallSite& site : image->call_sites) {
    EXPECT_NE(site.site.cfa_register, JT_CFA_NONE) << std::hex << site.return_offset;
    EXPECT_EQ(site.site.cfa_offset % 8, 0) << std::hex << site.return_offset;
    EXPECT_LE(site.site.saved_bp, 0);
  }
}

TEST_P(ProgramTest, is_recovered_when_stripped) {
  ASSERT_TRUE(run("strip " + program_));
  const auto image = analyse_file(program_, options_);
  ASSERT_TRUE(image);
  EXPECT_EQ(image->tier, Tier::recovered);
  EXPECT_EQ(image->linkage, Linkage::static_linked);
  EXPECT_TRUE(image->version.known());
}

TEST_P(ProgramTest, finds_its_debug_file_by_build_id) {
  const std::string id = analyse_file(program_, options_)->build_id;
  const std::string place = options_.debug_root + "/.build-id/" + id.substr(0, 2);
  const std::string debug = place + "/" + id.substr(2) + ".debug";
  const std::string stripped = folder_ / "stripped";
  ASSERT_TRUE(run("mkdir -p " + place + " && objcopy --only-keep-debug " + program_ + " " + debug +
                  " && strip -o " + stripped + " " + program_));
  const auto image = analyse_file(stripped, options_);
  ASSERT_TRUE(image);
  expect_same_as_unstripped(*image, "build-id");
}

TEST_P(ProgramTest, finds_its_debug_file_by_link_below_the_debug_root_only) {
  const std::string place = options_.debug_root + folder_.path();
  const std::string stripped = folder_ / "stripped";
  ASSERT_TRUE(run("cd " + folder_.path() +
                  " && objcopy --only-keep-debug program program.debug && strip -o stripped " +
                  "program && objcopy --add-gnu-debuglink=program.debug stripped"));
  // Beside the program it lies already; a container could have put it there.
  EXPECT_EQ(analyse_file(stripped, options_)->tier, Tier::recovered);
  ASSERT_TRUE(
      run("mkdir -p " + place + "/.debug && mv " + (folder_ / "program.debug") + " " + place + "/.debug/"));
  const auto image = analyse_file(stripped, options_);
  ASSERT_TRUE(image);
  expect_same_as_unstripped(*image, "debuglink");
}

TEST_P(ProgramTest, refuses_the_debug_file_of_another_build) {
  const std::string id = analyse_file(program_, options_)->build_id;
  const std::string place = options_.debug_root + "/.build-id/" + id.substr(0, 2);
  ASSERT_TRUE(run("mkdir -p " + place + " && cp " + program_ + " " + place + "/" + id.substr(2) +
                  ".debug && strip " + program_ + " && objcopy --remove-section=.note.gnu.build-id " + place +
                  "/" + id.substr(2) + ".debug"));
  const auto image = analyse_file(program_, options_);
  ASSERT_TRUE(image);
  EXPECT_EQ(image->tier, Tier::recovered);
  EXPECT_THAT(image->notes, Contains(HasSubstr("another build-id")));
}

TEST_P(ProgramTest, reads_mini_debug_info) {
  // The steps of gdb's manual, "MiniDebugInfo", but for the list of functions to leave out.
  ASSERT_TRUE(
      run("cd " + folder_.path() + " && objcopy -S --only-keep-debug program bare && " +
          "objcopy --only-keep-debug program mini && objcopy -g --remove-section .comment mini && " +
          "strip -o stripped program && xz mini && objcopy --add-section .gnu_debugdata=mini.xz stripped"));
  const auto image = analyse_file(folder_ / "stripped", options_);
  ASSERT_TRUE(image);
  expect_same_as_unstripped(*image, "minidebuginfo");
}

TEST_P(ProgramTest, survives_broken_mini_debug_info) {
  ASSERT_TRUE(run("cd " + folder_.path() +
                  " && head -c 5000 program > mini && xz -k mini && head -c 900 mini.xz > cut && " +
                  "strip -o stripped program && objcopy --add-section .gnu_debugdata=cut stripped"));
  const auto image = analyse_file(folder_ / "stripped", options_);
  ASSERT_TRUE(image);
  EXPECT_EQ(image->tier, Tier::recovered);
  EXPECT_THAT(image->notes, Contains(HasSubstr("MiniDebugInfo")));
}

INSTANTIATE_TEST_SUITE_P(Linked, ProgramTest, ::testing::Values("", "-static", "-static-pie", "-no-pie"),
                         [](const auto& info) {
                           std::string name = info.param;
                           std::erase(name, '-');
                           return name.empty() ? std::string("dynamic") : name;
                         });

TEST(AnalyseProgram, takes_a_tool_that_only_talks_about_jemalloc_for_none) {
  TempFolder folder;
  std::ofstream(folder / "talk.c")
      << "#include <stdio.h>\nint main(void) { puts(\"<jemalloc>: opt.dirty_decay_ms\"); }\n";
  if (!run("cc -o " + (folder / "talk") + " " + (folder / "talk.c"))) {
    GTEST_SKIP() << "no C compiler";
  }
  const auto fd = open_file(folder / "talk", O_RDONLY);
  EXPECT_TRUE(*may_hold_jemalloc(fd->get()));
  EXPECT_FALSE(analyse_file(folder / "talk"));
}

TEST(AnalyseProgram, knows_an_old_jemalloc_and_shows_system_calls_only) {
  TempFolder folder;
  std::ofstream(folder / "old.c")
      << "#include <stdio.h>\nint main(void) { puts(\"<jemalloc>: opt.lg_dirty_mult\"); "
         "puts(\"4.5.0-0-g04380e79f1e2428bd0ad000bbc6e3d2dfc6b66a5\"); }\n";
  if (!run("cc -o " + (folder / "old") + " " + (folder / "old.c"))) {
    GTEST_SKIP() << "no C compiler";
  }
  const auto image = analyse_file(folder / "old");
  ASSERT_TRUE(image);
  EXPECT_EQ(image->version.major, 4);
  EXPECT_EQ(image->tier, Tier::syscall);
  EXPECT_THAT(image->notes, Contains(HasSubstr("4.x")));
}

TEST(Names, are_those_of_the_glossary) {
  EXPECT_STREQ(name(Tier::symbols), "symbols");
  EXPECT_STREQ(name(Linkage::static_linked), "static");
  EXPECT_STREQ(name(CostClass::emulated), "emulated");
  Image image;
  image.symbol_prefix = "_rjem_";
  EXPECT_EQ(image.conf_variable(), "_RJEM_MALLOC_CONF");
}

}  // namespace
}  // namespace jemtrace::locate::testing
