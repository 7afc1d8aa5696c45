#include "cli/options.hpp"

#include <gtest/gtest.h>

#include <sstream>
#include <utility>

#include "cli/examples.hpp"

namespace jemtrace::cli {
namespace {

Parsed parse_line(std::vector<const char*> args) {
  args.insert(args.begin(), "jemtrace");
  return parse(static_cast<int>(args.size()), args.data());
}

/// What a shell makes of one line, single quotes and no more.
std::vector<std::string> words(std::string line) {
  std::vector<std::string> out;
  std::string word;
  bool quoted = false;
  for (const char c : line + ' ') {
    if (c == '\'') {
      quoted = !quoted;
    } else if (c != ' ' || quoted) {
      word += c;
    } else if (!word.empty()) {
      out.push_back(std::exchange(word, {}));
    }
  }
  return out;
}

TEST(ParseOptions, takes_the_examples_that_help_gives) {
  size_t examples = 0;
  for (const std::string verb :
       {"", "list", "image", "stats", "prof", "diagnose", "merge", "serve", "advise", "sweep", "check"}) {
    std::istringstream lines(help_footer(verb));
    for (std::string line; std::getline(lines, line);) {
      if (!line.starts_with("  jemtrace")) {
        continue;
      }
      EXPECT_LE(line.size(), 80U) << line;
      line = line.substr(2, std::min(line.find("   ", 2), line.find(';')) - 2);
      const std::vector<std::string> parts = words(line);
      std::vector<const char*> args;
      for (size_t i = 1; i < parts.size(); ++i) {
        args.push_back(parts[i].c_str());
      }
      EXPECT_TRUE(parse_line(args).options) << line << ": " << parse_line(args).text;
      ++examples;
    }
  }
  EXPECT_GT(examples, 25U);
}

TEST(ParseOptions, without_any_traces_everything) {
  const auto parsed = parse_line({});
  ASSERT_TRUE(parsed.options);
  EXPECT_EQ(parsed.options->verb, Verb::trace);
  EXPECT_TRUE(parsed.options->selection.everything());
}

TEST(ParseOptions, takes_lists_and_repeated_pids) {
  const auto parsed = parse_line({"-p", "1,2", "-p", "3", "-d", "30s", "-i", "500ms"});
  ASSERT_TRUE(parsed.options);
  EXPECT_EQ(parsed.options->selection.pids, (std::vector<pid_t>{1, 2, 3}));
  EXPECT_TRUE(parsed.options->selection.only_pids());
  EXPECT_EQ(parsed.options->duration, std::chrono::seconds(30));
  EXPECT_EQ(parsed.options->interval, std::chrono::milliseconds(500));
}

TEST(ParseOptions, leaves_the_command_behind_the_dashes_alone) {
  const auto parsed = parse_line({"-f", "json", "--", "prog", "-p", "x", "--", "--help"});
  ASSERT_TRUE(parsed.options);
  EXPECT_EQ(parsed.options->format, Format::json);
  EXPECT_EQ(parsed.options->command, (std::vector<std::string>{"prog", "-p", "x", "--", "--help"}));
}

TEST(ParseOptions, can_have_an_image_looked_at_again) {
  EXPECT_FALSE(parse_line({"image", "1"}).options->rebuild);
  EXPECT_TRUE(parse_line({"image", "1", "--rebuild"}).options->rebuild);
  EXPECT_FALSE(parse_line({"--rebuild"}).options);
}

TEST(ParseOptions, gives_selection_to_list) {
  const auto parsed = parse_line({"list", "-n", "redis*", "--cgroup", "/sys/fs/cgroup/web"});
  ASSERT_TRUE(parsed.options);
  EXPECT_EQ(parsed.options->verb, Verb::list);
  EXPECT_EQ(parsed.options->selection.name_globs, (std::vector<std::string>{"redis*"}));
  EXPECT_EQ(parsed.options->selection.cgroups, (std::vector<std::string>{"/web"}));
}

TEST(ParseOptions, calls_mallctl_only_when_told_to) {
  EXPECT_FALSE(parse_line({"stats", "-p", "1"}).options->call.wanted);
  const auto parsed = parse_line({"stats", "-p", "1", "--mallctl=call", "--epoch", "--set",
                                  "dirty_decay_ms=500", "--set", "background_thread=true", "--arena", "3"});
  ASSERT_TRUE(parsed.options) << parsed.text;
  EXPECT_TRUE(parsed.options->call.wanted);
  EXPECT_TRUE(parsed.options->call.epoch);
  EXPECT_EQ(parsed.options->call.sets.size(), 2U);
  EXPECT_EQ(parsed.options->call.arena, 3U);
  EXPECT_EQ(parse_line({"prof", "-p", "1", "--dump", "/tmp/f"}).options->prof.dump, "/tmp/f");
}

TEST(ParseOptions, refuses_what_makes_no_sense) {
  for (const auto& args :
       std::vector<std::vector<const char*>>{{"-p", "x"},
                                             {"-p", "0"},
                                             {"-d", "10"},
                                             {"--no-such"},
                                             {"-f", "xml"},
                                             {"--user", "no-such-user-here"},
                                             {"-p", "1", "--", "prog"},
                                             {"list", "--", "prog"},
                                             {"--"},
                                             {"image"},
                                             {"stats", "-p", "1,2", "--mallctl=call"},
                                             {"stats", "-p", "1", "--mallctl=maybe"},
                                             {"stats", "-p", "1", "--epoch"},
                                             {"stats", "-p", "1", "--set", "dirty_decay_ms=1"},
                                             {"stats", "-p", "1", "--mallctl=call", "--arena", "1"},
                                             {"prof", "-p", "1"},
                                             {"prof", "-p", "1", "--dump", "relative"},
                                             {"prof", "-p", "1", "--activate", "--deactivate"},
                                             {"diagnose", "--flush-lazyfree"},
                                             {"diagnose", "--mallctl=call"},
                                             {"-d", "1s", "serve"},
                                             {"--strict", "stats", "-p", "1"},
                                             {"-p", "1", "check"},
                                             {"serve", "--otlp-interval", "1s"},
                                             {"bogus"}}) {
    const auto parsed = parse_line(args);
    EXPECT_FALSE(parsed.options) << args[0];
    EXPECT_EQ(parsed.exit_status, 2) << args[0];
    EXPECT_EQ(parsed.text.rfind("jemtrace: ", 0), 0U) << parsed.text;
  }
}

TEST(ParseOptions, diagnose_watches_what_is_selected) {
  const auto parsed = parse_line({"diagnose", "-p", "1,2", "-d", "3s", "--since-oom"});
  ASSERT_TRUE(parsed.options) << parsed.text;
  EXPECT_EQ(parsed.options->verb, Verb::diagnose);
  EXPECT_EQ(parsed.options->duration, std::chrono::seconds(3));
  EXPECT_TRUE(parsed.options->diagnose.since_oom);
  EXPECT_FALSE(parsed.options->diagnose.flush_lazyfree);
}

TEST(ParseOptions, help_and_version_are_no_errors) {
  for (const char* flag : {"--help", "--version"}) {
    const auto parsed = parse_line({flag});
    EXPECT_FALSE(parsed.options);
    EXPECT_EQ(parsed.exit_status, 0);
    EXPECT_FALSE(parsed.text.empty());
  }
}

}  // namespace
}  // namespace jemtrace::cli
