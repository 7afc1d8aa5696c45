// What a program asks its own jemalloc, and what it says in malloc_conf. Oracle: the workload prints its
// answers.
#include <sys/utsname.h>

#include <cstdio>

#include "live.hpp"

namespace jemtrace::live {
namespace {

bool has_sessions() {
  utsname name{};
  int major = 0;
  int minor = 0;
  return ::uname(&name) == 0 && std::sscanf(name.release, "%d.%d", &major, &minor) == 2 &&
         std::make_pair(major, minor) >= std::make_pair(6, 14);
}

Json answer(const Json& asked, const std::string& name) {
  for (const Json& one : asked["values"]) {
    if (one["name"] == name) {
      return one;
    }
  }
  return {{"value", nullptr}, {"age_ms", nullptr}};
}

class Asks : public LiveTest, public ::testing::WithParamInterface<std::string> {};

// The states of the structures agree with what the program was told, so no caveat speaks of a difference.
TEST_P(Asks, and_its_answers_agree_with_its_structures) {
  if (!has_sessions()) {
    GTEST_SKIP() << "no uprobe sessions on this kernel";
  }
  Trace run;
  Json summary;
  // Comparing has a budget, which on a busy machine is not refilled in a second.
  for (const char* times : {"10", "100", "400"}) {
    run = run_traced({workload(GetParam()), std::string("times=") + times}, {}, {"--passive", "-i", "200ms"});
    ASSERT_EQ(run.outcome.status, 0) << run.outcome.err;
    summary = run.output().summary_of(parse_block(run.outcome.out).pid());
    if (summary["asked"]["compared_total"] > 0) {
      break;
    }
  }
  const Block truth = parse_block(run.outcome.out);
  for (const Json& caveat : summary["caveats"]) {
    EXPECT_EQ(caveat.get<std::string>().find("asked its jemalloc"), std::string::npos) << caveat;
  }
  const std::string target = run.output().target(truth.pid()).dump();
  EXPECT_EQ(target.find("passive:"), std::string::npos) << target;
  const Json& asked = summary["asked"];
  EXPECT_EQ(answer(asked, "stats.allocated")["value"], truth.number("allocated")) << asked;
  EXPECT_EQ(answer(asked, "stats.active")["value"], truth.number("active")) << asked;
  EXPECT_LT(answer(asked, "stats.active")["age_ms"], 10'000u) << asked;
  EXPECT_GT(asked["compared_total"], 0u) << asked;
  EXPECT_EQ(asked["different_total"], 0u) << asked;
}

TEST_P(Asks, and_malloc_conf_in_the_program_is_a_source) {
  const Process process({workload(GetParam()), "times=6000"});
  wait_for_jemalloc(process.pid());
  const Outcome outcome = run_jemtrace({"list", "-f", "json", "-p", std::to_string(process.pid())});
  ASSERT_EQ(outcome.status, 0) << outcome.err;
  EXPECT_NE(outcome.out.find("malloc_conf in the program"), std::string::npos) << outcome.out;
  EXPECT_NE(outcome.out.find("4321"), std::string::npos) << outcome.out;
}

INSTANTIATE_TEST_SUITE_P(Linkage, Asks, ::testing::Values("asks", "static_asks"),
                         [](const auto& info) { return info.param; });

}  // namespace
}  // namespace jemtrace::live
