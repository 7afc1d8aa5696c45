// Which purged pages are touched again. Oracle: the workload `refault`, which purges what it knows and
// touches known shares of it; its own minor faults say that each touch was one.
#include <sys/syscall.h>

#include "live.hpp"

namespace jemtrace::live {
namespace {

constexpr double tolerance = 0.02;

const std::map<std::string, std::string> by_hand = {
    {"MALLOC_CONF", "oversize_threshold:0,dirty_decay_ms:-1,muzzy_decay_ms:0"}};

struct Observed {
  Block truth;
  Json summary;

  Json refaults() const { return summary["refaults"]; }
  double share(uint64_t pages) const {
    return static_cast<double>(pages) / static_cast<double>(truth.number("purged_pages"));
  }
};

Observed run_refault(const Strings& arguments, const std::map<std::string, std::string>& environment,
                     const Strings& options = {}, const std::string& name = "static_refault") {
  Strings command = {workload(name)};
  command.insert(command.end(), arguments.begin(), arguments.end());
  const Trace run = run_traced(command, {.environment = environment}, options);
  EXPECT_EQ(run.outcome.status, 0) << run.outcome.err;
  const Block truth = parse_block(run.outcome.out);
  return {truth, run.output().summary_of(truth.pid())};
}

/// What the workload touched at once came back within 1 s, the rest (after 1.5 s) within 10 s.
void expect_shares(const Observed& run) {
  const uint64_t now = run.truth.number("touched_now");
  const uint64_t all = now + run.truth.number("touched_later");
  const Json refaults = run.refaults();
  EXPECT_EQ(run.truth.number("faults_now"), now) << "the workload proves nothing";
  EXPECT_NEAR(refaults["within_1s"]["share"].get<double>(), run.share(now), tolerance) << refaults;
  EXPECT_NEAR(refaults["within_10s"]["share"].get<double>(), run.share(all), tolerance) << refaults;
  EXPECT_NEAR(refaults["within_60s"]["share"].get<double>(), run.share(all), tolerance) << refaults;
  EXPECT_EQ(refaults["purged_pages"], run.truth.number("purged_pages"));
  EXPECT_EQ(refaults["sampling_rate"], 1.0) << refaults;
  EXPECT_EQ(refaults["evicted_pages"], 0u);
}

// Faults of 4 KiB: the share is the workload's own.
LIVE_TEST(Refaults, share_equals_what_was_touched) {
  const Observed run = run_refault({"thp=off"}, by_hand);
  expect_shares(run);
  EXPECT_EQ(run.refaults()["by_from"]["dirty"]["followed_pages"], run.truth.number("purged_pages"));
}

// read(2) into a purged page faults in the kernel, not in the program.
LIVE_TEST(Refaults, pages_that_a_system_call_writes_to_count) {
  expect_shares(run_refault({"thp=off", "by=read"}, by_hand));
}

LIVE_TEST(Refaults, nothing_touched_is_nothing_come_back) {
  const Observed run = run_refault({"thp=off", "now=0", "later=0", "wait_ms=1200"}, by_hand);
  EXPECT_NEAR(run.refaults()["within_1s"]["share"].get<double>(), 0, tolerance);
}

// Without a probe the source is not known; what comes back is.
LIVE_TEST(Refaults, are_counted_in_a_stripped_program) {
  expect_shares(run_refault({"thp=off"}, by_hand, {}, "stripped_refault"));
}

// With huge pages one fault may bring 512 pages: what is resident at the end lies between the two numbers.
LIVE_TEST(Refaults, huge_pages_lie_within_the_bound) {
  auto environment = by_hand;
  environment["MALLOC_CONF"] += ",thp:always";
  const Observed run = run_refault({"blocks=512", "now=1", "later=0", "wait_ms=1"}, environment);
  const uint64_t resident = run.truth.number("resident_pages");
  const uint64_t purged = run.truth.number("purged_pages");
  const Json within = run.refaults()["within_10s"];
  EXPECT_LE(within["touched_pages"].get<uint64_t>(), resident + purged / 50) << within;
  EXPECT_GE(within["touched_max_pages"].get<uint64_t>() + purged / 50, resident) << within;
}

// Pages purged a moment ago have had no 10 s to come back in: they are not called lost for that time.
LIVE_TEST(Refaults, pages_purged_a_moment_ago_are_waiting) {
  Process target({workload("static_refault"), "thp=off", "now=30", "later=0", "wait_ms=60000", "start=line"},
                 {.environment = by_hand, .with_stdin = true});
  target.wait_for_syscall(SYS_read);
  Tracer tracer({"-p", std::to_string(target.pid())});
  tracer.wait_for(target.pid());
  target.send("start");
  target.wait_for_syscall(SYS_clock_nanosleep);  // purged, and touched what it touches at once
  const Trace trace = tracer.stop();
  const Json refaults = trace.output().summary_of(target.pid())["refaults"];
  ASSERT_GT(refaults["followed_pages"], 0u) << "it purged outside the window";
  EXPECT_GT(refaults["within_10s"]["touched_pages"], 0u) << refaults;
  EXPECT_GT(refaults["within_10s"]["waiting_pages"], 0u) << refaults;
  EXPECT_EQ(refaults["within_10s"]["waiting_pages"].get<uint64_t>() +
                refaults["within_10s"]["touched_pages"].get<uint64_t>(),
            refaults["followed_pages"].get<uint64_t>())
      << refaults;
}

LIVE_TEST(Refaults, are_unknown_when_they_are_not_wanted) {
  const Observed run = run_refault({"wait_ms=1"}, by_hand, {"--no-refaults"});
  EXPECT_TRUE(run.summary["refaults"].is_null());
  EXPECT_TRUE(run.summary["exact"].get<bool>());
}

}  // namespace
}  // namespace jemtrace::live
