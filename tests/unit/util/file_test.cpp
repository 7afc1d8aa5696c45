#include "util/file.hpp"

#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>

namespace jemtrace {
namespace {

class FileTest : public ::testing::Test {
 protected:
  FileTest() {
    std::string name = "/tmp/jemtrace-file-XXXXXX";
    root_ = ::mkdtemp(name.data());
  }
  ~FileTest() override { std::filesystem::remove_all(root_); }
  void put(const std::string& path, const std::string& text) {
    std::filesystem::create_directories(std::filesystem::path(root_ + "/" + path).parent_path());
    std::ofstream(root_ + "/" + path) << text;
  }
  std::string root_;
};

TEST_F(FileTest, reading_stops_at_the_limit) {
  put("big", std::string(1000, 'x'));
  EXPECT_EQ(read_file(root_ + "/big", 1000)->size(), 1000U);
  EXPECT_EQ(read_file(root_ + "/big", 999).error().code, Errc::too_large);
}

TEST_F(FileTest, a_missing_file_is_gone) {
  const auto text = read_file(root_ + "/none");
  EXPECT_EQ(text.error().code, Errc::gone);
  EXPECT_EQ(text.error().message(), "cannot open " + root_ + "/none: No such file or directory");
}

TEST_F(FileTest, only_numbers_are_pids) {
  for (const char* name : {"12", "7", "self", "12a", "-3", "0"}) {
    put(std::string(name) + "/comm", "x");
  }
  EXPECT_EQ(ProcRoot(root_).pids().value(), (std::vector<pid_t>{7, 12}));
}

TEST_F(FileTest, a_short_file_is_malformed) {
  put("four", "1234");
  const auto fd = open_file(root_ + "/four", 0);
  char buffer[8];
  EXPECT_TRUE(read_at(fd->get(), 0, buffer, 4));
  EXPECT_EQ(read_at(fd->get(), 1, buffer, 4).error().code, Errc::malformed);
}

}  // namespace
}  // namespace jemtrace
