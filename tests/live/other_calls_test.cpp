// What looks like a purge and is none is not counted as one, and is listed by purpose. Oracles: jemalloc's
// counters, and what the workload says it did itself.
#include "live.hpp"

namespace jemtrace::live {
namespace {

class OtherCalls : public LiveTest {
 protected:
  void SetUp() override {
    LiveTest::SetUp();
    if (HasFatalFailure() || IsSkipped()) {
      return;
    }
    run_ = run_traced({workload("static_own_madvise")},
                      {.environment = {{"MALLOC_CONF", "dirty_decay_ms:200,muzzy_decay_ms:200"}}});
    ASSERT_EQ(run_.outcome.status, 0) << run_.outcome.err;
    block_ = parse_block(run_.outcome.out);
    summary_ = run_.output().summary_of(block_.pid());
  }

  Trace run_;
  Block block_{{}};
  Json summary_;
};

TEST_F(OtherCalls, leave_the_counters_exact) {
  EXPECT_GT(block_.number("dirty_npurge"), 0u);
  EXPECT_EQ(counters_of(summary_), block_.counters());
  expect_no_losses(summary_);
}

TEST_F(OtherCalls, of_the_program_itself_are_foreign) {
  const Calls foreign = other_calls_of(summary_, "foreign");
  EXPECT_EQ(foreign.calls, block_.number("own_dontneed") + block_.number("own_free") +
                               block_.number("own_munmap") + block_.number("own_decommit"));
  EXPECT_EQ(foreign.bytes, foreign.calls * (1 << 20));
}

TEST_F(OtherCalls, that_zero_recycled_memory_are_zero_fills) {
  const Calls zero_fills = other_calls_of(summary_, "zero_fill");
  EXPECT_EQ(zero_fills.calls, block_.number("callocs"));
  EXPECT_GE(zero_fills.bytes, block_.number("callocs") * 524288);
}

TEST_F(OtherCalls, at_the_start_of_jemalloc_are_boot_probes) {
  EXPECT_EQ(other_calls_of(summary_, "boot_probe").calls,
            4u);  // MADV_DONTNEED, MADV_FREE, and munmap after each
}

TEST_F(OtherCalls, at_the_end_of_a_thread_trim_its_stack) {
  EXPECT_EQ(other_calls_of(summary_, "thread_stack").calls, block_.number("threads"));
}

TEST_F(OtherCalls, are_all_classified) {
  EXPECT_EQ(other_calls_of(summary_, "unclassified"), Calls{});
  EXPECT_EQ(other_calls_of(summary_, "unproven"), Calls{});
}

// arena.<i>.destroy gives metadata back by MADV_DONTNEED and unmaps what was retained: neither counts as a
// purge.
LIVE_TEST(DestroyedArenas, give_back_metadata_apart_from_purges) {
  const Trace run = run_traced({workload("static_multi_arena"), "threads=4"},
                               {.environment = {{"MALLOC_CONF", "dirty_decay_ms:20,muzzy_decay_ms:20"}}});
  const Block block = parse_block(run.outcome.out);
  const Json summary = run.output().summary_of(block.pid());

  EXPECT_EQ(counters_of(summary), block.counters());
  EXPECT_GE(other_calls_of(summary, "metadata").calls, 4u);
  EXPECT_GT(summary["transitions"]["retained_returned"]["extents_total"], 0);
}

}  // namespace
}  // namespace jemtrace::live
