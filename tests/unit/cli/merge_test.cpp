// `jemtrace merge` as it is typed: files in, files out, exit status, messages.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <sstream>

#include "../render/samples.hpp"
#include "cli/run.hpp"
#include "render/output.hpp"

namespace jemtrace::cli {
namespace {

using ::testing::HasSubstr;
namespace samples = render::samples;

class Merge : public ::testing::Test {
 protected:
  Merge() { std::filesystem::create_directories(folder_); }
  ~Merge() override { std::filesystem::remove_all(folder_); }

  [[nodiscard]] std::string path(const std::string& name) const { return folder_ / name; }

  std::string host(const std::string& name) {
    render::StringSink sink;
    const auto out = render::make_ndjson(sink);
    ledger::Header header = samples::header();
    header.host = name;
    out->header(header);
    out->target(samples::target());
    out->summary(samples::summary());
    std::ofstream(path(name)) << sink.text();
    return path(name);
  }

  /// Its status; what it said is in `messages_`.
  int run_merge(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), {"jemtrace", "merge"});
    std::vector<const char*> argv;
    for (const std::string& argument : arguments) {
      argv.push_back(argument.c_str());
    }
    ::testing::internal::CaptureStderr();
    const int status = run(static_cast<int>(argv.size()), argv.data());
    messages_ = ::testing::internal::GetCapturedStderr();
    return status;
  }

  [[nodiscard]] std::string read(const std::string& name) const {
    std::ostringstream text;
    text << std::ifstream(path(name)).rdbuf();
    return text.str();
  }

  std::filesystem::path folder_ =
      std::filesystem::temp_directory_path() / ("jemtrace-merge-" + std::to_string(::getpid()));
  std::string messages_;
};

TEST_F(Merge, writes_text_json_and_html) {
  EXPECT_EQ(run_merge({host("a"), host("b"), "--html", path("html"), "-o", path("text")}), 0) << messages_;
  EXPECT_EQ(messages_, "");
  EXPECT_THAT(read("text"), HasSubstr("2 hosts, 2 runs, 2 processes"));
  EXPECT_THAT(read("html"), ::testing::StartsWith("<!DOCTYPE html>"));
  EXPECT_EQ(run_merge({path("a"), path("b"), "-f", "json", "-o", path("all")}), 0);
  EXPECT_EQ(run_merge({path("all"), "-f", "json", "-o", path("again")}), 0);
  EXPECT_EQ(read("again"), read("all"));
}

TEST_F(Merge, stops_at_a_file_it_cannot_read) {
  std::ofstream(path("bad")) << "{}\n";
  EXPECT_EQ(run_merge({host("a"), path("bad"), "-o", path("out")}), 1);
  EXPECT_THAT(messages_, HasSubstr("jemtrace: " + path("bad") + ":1: "));
  EXPECT_FALSE(std::filesystem::exists(path("out")));
  EXPECT_EQ(run_merge({path("missing")}), 1);
  EXPECT_THAT(messages_, HasSubstr("cannot read " + path("missing")));
}

TEST_F(Merge, counts_no_run_twice) {
  EXPECT_EQ(run_merge({host("a"), path("a"), "-o", path("out")}), 1);
  EXPECT_THAT(messages_, HasSubstr("counted already"));
  EXPECT_THAT(messages_, HasSubstr("\nhint: "));
}

TEST_F(Merge, leaves_out_what_is_bad_when_told_to) {
  std::ofstream(path("bad")) << "{}\n";
  EXPECT_EQ(run_merge({host("a"), path("bad"), path("a"), "--keep-going", "-o", path("out")}), 0);
  EXPECT_THAT(messages_, HasSubstr("2 of 3 files were left out"));
  EXPECT_THAT(read("out"), HasSubstr("1 host, 1 run, 1 process,"));
  EXPECT_EQ(run_merge({path("bad"), "--keep-going"}), 1);
}

TEST_F(Merge, wants_files) {
  EXPECT_EQ(run_merge({}), 2);
}

}  // namespace
}  // namespace jemtrace::cli
