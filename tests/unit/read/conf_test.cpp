#include "read/conf.hpp"

#include <gtest/gtest.h>
#include <stdlib.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

namespace jemtrace::read {
namespace {

TEST(ParseConf, later_keys_win_and_rubbish_is_left_out) {
  const auto conf = parse_conf("dirty_decay_ms:500,x,:y,dirty_decay_ms:20,thp:never,");
  EXPECT_EQ(conf, (std::map<std::string, std::string>{{"dirty_decay_ms", "20"}, {"thp", "never"}}));
}

TEST(FindVariable, matches_whole_names) {
  const std::string environ("XMALLOC_CONF=a\0MALLOC_CONFX=b\0MALLOC_CONF=c:d\0", 45);
  EXPECT_EQ(find_variable(environ, "MALLOC_CONF"), "c:d");
  EXPECT_EQ(find_variable(environ, "_RJEM_MALLOC_CONF"), "");
}

class ReadConf : public ::testing::Test {
 protected:
  ReadConf() {
    std::string name = "/tmp/jemtrace-conf-XXXXXX";
    root_ = ::mkdtemp(name.data());
    std::filesystem::create_directories(root_ + "/5/root/etc");
  }
  ~ReadConf() override { std::filesystem::remove_all(root_); }
  std::string root_;
};

TEST(ConfVariables, are_all_whose_names_end_so) {
  const std::string environ("A=b\0MALLOC_CONF=x:1\0_RJEM_MALLOC_CONF=y:2\0MALLOC_CONF_NOT=z\0MALLOC_CONF\0",
                            73);
  const auto found = conf_variables(environ);
  ASSERT_EQ(found.size(), 2u);
  EXPECT_EQ(found[0].first, "MALLOC_CONF");
  EXPECT_EQ(found[0].second, "x:1");
  EXPECT_EQ(found[1].first, "_RJEM_MALLOC_CONF");
}

TEST_F(ReadConf, environment_overrides_the_link_and_that_the_defaults) {
  std::filesystem::create_symlink("dirty_decay_ms:1,retain:false", root_ + "/5/root/etc/malloc.conf");
  std::ofstream(root_ + "/5/environ") << std::string("A=b\0MALLOC_CONF=dirty_decay_ms:2\0", 33);
  const auto conf = read_conf(ProcRoot(root_), 5, "5.3.0-0-g54eaed1d", "MALLOC_CONF", "").settings;
  EXPECT_EQ(conf.at("dirty_decay_ms").value, "2");
  EXPECT_EQ(conf.at("dirty_decay_ms").source, "MALLOC_CONF in its environment");
  EXPECT_EQ(conf.at("retain").value, "false");
  EXPECT_EQ(conf.at("retain").source, "/etc/malloc.conf");
  EXPECT_EQ(conf.at("muzzy_decay_ms").value, "0");
  EXPECT_EQ(conf.at("muzzy_decay_ms").source, "default of 5.3.0");
}

TEST_F(ReadConf, muzzy_decay_was_ten_seconds_before_5_2) {
  std::ofstream(root_ + "/5/environ") << "A=b";
  const auto conf = read_conf(ProcRoot(root_), 5, "5.1.0-0-g0", "MALLOC_CONF", "").settings;
  EXPECT_EQ(conf.at("muzzy_decay_ms").value, "10000");
}

TEST_F(ReadConf, an_unknown_version_has_no_defaults) {
  std::ofstream(root_ + "/5/environ") << "A=b";
  EXPECT_TRUE(read_conf(ProcRoot(root_), 5, "", "MALLOC_CONF", "").settings.empty());
}

TEST_F(ReadConf, an_overwritten_environment_makes_all_settings_unknown) {
  std::ofstream(root_ + "/5/environ") << std::string(64, '\0');  // redis-server, after it has set its title
  const Conf conf = read_conf(ProcRoot(root_), 5, "5.3.0-0-g54eaed1d", "MALLOC_CONF", "");
  EXPECT_TRUE(conf.settings.empty());
  EXPECT_EQ(conf.unknown_because, "it has overwritten its environment");
}

TEST_F(ReadConf, an_unreadable_environment_makes_all_settings_unknown) {
  EXPECT_FALSE(read_conf(ProcRoot(root_), 6, "5.3.0-0-g54eaed1d", "MALLOC_CONF", "").unknown_because.empty());
}

}  // namespace
}  // namespace jemtrace::read
