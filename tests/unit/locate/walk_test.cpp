#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <set>
#include <sstream>

#include "programs.hpp"

namespace jemtrace::locate::testing {
namespace {

struct Walk {
  int advice = 0, purpose = 0, cause = 0;
  std::vector<std::string> functions;  // innermost first
};

struct Outcome {
  std::map<std::string, std::vector<Walk>> phases;
  std::map<std::string, uint64_t> counters;
};

/// The function that a return address lies behind a call in, by the symbol table alone.
std::string function_of(const Image& image, uint64_t return_offset) {
  for (const FoundRole& found : image.roles) {
    if (return_offset > found.offset && return_offset <= found.offset + found.size) {
      return found.role;
    }
  }
  return "?";
}

Outcome parse(const std::string& output, const Image& image) {
  Outcome result;
  std::istringstream lines(output);
  std::string line;
  std::string phase;
  while (std::getline(lines, line)) {
    const size_t equals = line.find('=');
    if (line.starts_with("phase=")) {
      phase = line.substr(6);
    } else if (equals != std::string::npos) {
      result.counters[line.substr(0, equals)] = std::stoull(line.substr(equals + 1));
    } else {
      std::istringstream words(line);
      Walk walk;
      words >> walk.advice >> walk.purpose >> walk.cause;
      for (uint64_t offset = 0; words >> std::hex >> offset;) {
        walk.functions.push_back(function_of(image, offset));
      }
      result.phases[phase].push_back(walk);
    }
  }
  return result;
}

void write_table(const Image& image, const std::string& path) {
  std::ofstream out(path, std::ios::binary);
  for (const CallSite& site : image.call_sites) {
    out.write(reinterpret_cast<const char*>(&site.return_offset), sizeof site.return_offset);
    out.write(reinterpret_cast<const char*>(&site.site), sizeof site.site);
  }
}

size_t count(const Outcome& outcome, const std::set<int>& purposes) {
  size_t n = 0;
  for (const auto& [phase, walks] : outcome.phases) {
    for (const Walk& walk : walks) {
      n += purposes.count(walk.purpose);
    }
  }
  return n;
}

/// Causes of the sweeps of a phase.
std::set<int> causes(const Outcome& outcome, const std::string& phase) {
  std::set<int> found;
  const auto walks = outcome.phases.find(phase);
  for (const Walk& walk : walks == outcome.phases.end() ? std::vector<Walk>{} : walks->second) {
    if (walk.purpose == JT_PURGE_SWEEP) {
      found.insert(walk.cause);
    }
  }
  return found;
}

std::set<int> purposes(const Outcome& outcome, const std::string& phase) {
  std::set<int> found;
  const auto walks = outcome.phases.find(phase);
  for (const Walk& walk : walks == outcome.phases.end() ? std::vector<Walk>{} : walks->second) {
    found.insert(walk.purpose);
  }
  return found;
}

// A process walks its own stack by our table, as the kernel side does. Oracles: what the program asked for in
// each phase, and jemalloc's own count of purged extents.
/// With the table that the program's symbols make, and with the one recovered from a stripped copy.
class WalkTest : public ::testing::TestWithParam<bool> {
 protected:
  void SetUp() override {
    const std::string here = TEST_SOURCES "/locate";
    const std::string include = here + "/../../../include";
    const std::string program = folder_ / "walk_program";
    if (!run("cc -O2 -g -I" + include + " -o " + program + " " + here + "/walk_program.c " + archive +
             " -lstdc++ -lm -lpthread -ldl")) {
      GTEST_SKIP() << "no C compiler or no libjemalloc.a";
    }
    image_ = analyse_file(program);
    ASSERT_TRUE(image_);
    if (GetParam()) {
      const std::string stripped = folder_ / "stripped";
      ASSERT_TRUE(run("strip -s -o " + stripped + " " + program));
      const auto recovered = analyse_file(stripped);
      ASSERT_TRUE(recovered);
      ASSERT_EQ(recovered->tier, Tier::recovered);
      write_table(*recovered, folder_ / "table");
    } else {
      write_table(*image_, folder_ / "table");
    }
  }

  Outcome walk(const std::string& conf) {
    return parse(
        output_of("MALLOC_CONF=" + conf + " " + (folder_ / "walk_program") + " " + (folder_ / "table")),
        *image_);
  }

  TempFolder folder_;
  std::optional<Image> image_;
};

using ::testing::Contains;
using ::testing::IsSubsetOf;

TEST_P(WalkTest, purges_are_as_many_as_jemalloc_counts) {
  for (const std::string conf :
       {"narenas:1", "narenas:1,muzzy_decay_ms:1000", "narenas:1,dirty_decay_ms:20",
        "narenas:1,dirty_decay_ms:0", "narenas:1,dirty_decay_ms:20,muzzy_decay_ms:20",
        "narenas:1,retain:false", "narenas:1,retain:false,muzzy_decay_ms:20"}) {
    const Outcome outcome = walk(conf);
    ASSERT_EQ(outcome.counters.size(), 2u) << conf;
    EXPECT_GT(count(outcome, {JT_PURGE_SWEEP, JT_PURGE_OVERSIZE}), 10u) << conf;
    EXPECT_EQ(count(outcome, {JT_PURGE_SWEEP, JT_PURGE_OVERSIZE}),
              outcome.counters.at("dirty_nmadvise") + outcome.counters.at("muzzy_nmadvise"))
        << conf;
    EXPECT_EQ(count(outcome, {JT_UNCLASSIFIED, JT_FOREIGN, JT_PASS}), 0u) << conf;
  }
}

TEST_P(WalkTest, sweeps_pass_through_the_sweep_function) {
  const Outcome outcome = walk("narenas:1,muzzy_decay_ms:1000");
  for (const auto& [phase, walks] : outcome.phases) {
    for (const Walk& walk : walks) {
      if (walk.purpose == JT_PURGE_SWEEP) {
        EXPECT_THAT(walk.functions, Contains("pac_decay_to_limit")) << phase;
        EXPECT_THAT(walk.functions, ::testing::Not(Contains("?"))) << phase;
      }
    }
  }
}

TEST_P(WalkTest, sweeps_tell_who_asked_for_them) {
  const Outcome outcome = walk("narenas:1,dirty_decay_ms:20");
  EXPECT_EQ(causes(outcome, "purge"), std::set<int>{JT_CAUSE_CTL_PURGE});
  EXPECT_THAT(causes(outcome, "decay"), Contains(JT_CAUSE_CTL_DECAY));
  EXPECT_THAT(causes(outcome, "decay"), IsSubsetOf({JT_CAUSE_CTL_DECAY, JT_CAUSE_TICK}));
  EXPECT_THAT(causes(outcome, "tick"), Contains(JT_CAUSE_TICK));
  EXPECT_THAT(causes(outcome, "thread"), Contains(JT_CAUSE_THREAD_EXIT));
}

TEST_P(WalkTest, decay_time_zero_purges_at_each_free) {
  EXPECT_THAT(causes(walk("narenas:1,dirty_decay_ms:0"), "tick"), Contains(JT_CAUSE_ZERO_DECAY));
}

TEST_P(WalkTest, large_coalesced_extents_are_purged_by_the_shortcut) {
  EXPECT_THAT(purposes(walk("narenas:1"), "oversize"), Contains(JT_PURGE_OVERSIZE));
}

TEST_P(WalkTest, zeroing_of_handed_out_memory_is_no_purge) {
  EXPECT_THAT(purposes(walk("narenas:1,oversize_threshold:0"), "zero"), Contains(JT_ZERO_FILL));
}

INSTANTIATE_TEST_SUITE_P(Table, WalkTest, ::testing::Bool(),
                         [](const auto& info) { return info.param ? "recovered" : "symbols"; });

}  // namespace
}  // namespace jemtrace::locate::testing
