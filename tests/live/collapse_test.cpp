// Huge pages that the kernel makes of small ones. Oracle: the workload asks for them (MADV_COLLAPSE does what
// khugepaged does, by the same function of the kernel's) and counts the pages that were missing.
#include "live.hpp"

namespace jemtrace::live {
namespace {

LIVE_TEST(Collapses, are_counted_with_the_memory_that_they_brought_back) {
  const Trace run =
      run_traced({workload("static_held"), "state=refilled"},
                 {.environment = {{"MALLOC_CONF", "narenas:1,dirty_decay_ms:-1,muzzy_decay_ms:0"}}});
  ASSERT_EQ(run.outcome.status, 0) << run.outcome.err;
  const Block truth = parse_blocks(run.outcome.out).at(0);
  const Json collapses = run.output().summary_of(truth.pid())["collapses"];
  EXPECT_GT(truth.number("filled_pages"), 1000u);
  ASSERT_TRUE(collapses.is_object()) << collapses;
  EXPECT_EQ(collapses["huge_pages_total"], truth.number("collapsed"));
  EXPECT_EQ(collapses["filled_bytes_total"], truth.number("filled_pages") * 4096);
}

LIVE_TEST(Collapses, of_nobody_are_none) {
  const Trace run = run_traced({workload("static_batch"), "rounds=3"});
  const Json summary = run.output().summary_of(parse_block(run.outcome.out).pid());
  EXPECT_EQ(summary["collapses"]["huge_pages_total"], 0u) << summary["collapses"];
}

}  // namespace
}  // namespace jemtrace::live
