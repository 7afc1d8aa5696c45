// `jemtrace stats`: the account sums to RSS, and its parts are what the workload made of its memory.
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>

#include "held.hpp"

namespace jemtrace::live {
namespace {

uint64_t part(const Json& stats, const std::string& name) {
  return stats.at("account").at("resident").at(name + "_bytes").get<uint64_t>();
}

void expect_near(uint64_t value, uint64_t expected, const char* what, const Json& stats) {
  const uint64_t slack = std::max(mib, expected / 50);
  EXPECT_GE(value + slack, expected) << what << stats.dump(1);
  EXPECT_LE(value, expected + slack) << what << stats.dump(1);
}

class Stats : public LiveTest, public ::testing::WithParamInterface<std::string> {
 protected:
  /// All that holds in every state.
  static Json check(const Held& held) {
    Json stats = held.stats();
    expect_sums_to_rss(stats, held.pid());
    expect_equals_mallctl(stats, held);
    return stats;
  }
};

TEST_P(Stats, dirty_pages_are_resident) {
  const Held held(GetParam(), "dirty", "dirty_decay_ms:-1");
  const Json stats = check(held);
  expect_near(part(stats, "dirty"), held.truth("pdirty") * 4096, "dirty", stats);
  expect_near(part(stats, "active"), held.truth("active"), "active", stats);
}

TEST_P(Stats, lazyfree_is_held) {
  const Held held(GetParam(), "lazyfree", "dirty_decay_ms:-1,muzzy_decay_ms:-1");
  const Json stats = check(held);
  expect_near(part(stats, "muzzy_lazyfree"), held.truth("pmuzzy") * 4096, "lazyfree", stats);
  EXPECT_LE(part(stats, "muzzy_redirtied"), mib);
}

TEST_P(Stats, lazyfree_written_to_again_is_not_lazy) {
  const Held held(GetParam(), "redirtied", "dirty_decay_ms:-1,muzzy_decay_ms:-1");
  const Json stats = check(held);
  const uint64_t muzzy = held.truth("pmuzzy") * 4096;
  expect_near(part(stats, "muzzy_lazyfree") + part(stats, "muzzy_redirtied"), muzzy, "muzzy", stats);
  // One of three freed blocks of 1 MiB each.
  expect_near(part(stats, "muzzy_redirtied"), 16 * mib, "redirtied", stats);
}

TEST_P(Stats, retained_is_not_resident) {
  const Held held(GetParam(), "retained", "dirty_decay_ms:-1,muzzy_decay_ms:0");
  const Json stats = check(held);
  EXPECT_LE(part(stats, "retained"), mib);
  EXPECT_GT(held.truth("retained"), 40 * mib);
}

TEST_P(Stats, retained_that_a_huge_page_refilled_is_resident) {
  const Held held(GetParam(), "refilled", "dirty_decay_ms:-1,muzzy_decay_ms:0");
  const Json stats = check(held);
  EXPECT_GT(part(stats, "retained"), 8 * mib) << stats.dump(1);
}

TEST_P(Stats, huge_pages_of_which_a_part_was_purged) {
  const Held held(GetParam(), "retained", "dirty_decay_ms:-1,muzzy_decay_ms:0,thp:always");
  check(held);
}

TEST_P(Stats, fragmented) {
  const Held held(GetParam(), "fragmented", "dirty_decay_ms:-1");
  const Json stats = check(held);
  expect_near(part(stats, "active"), held.truth("active"), "active", stats);
}

TEST_P(Stats, oversize) {
  check(Held(GetParam(), "oversize", "dirty_decay_ms:5000"));
}

TEST_P(Stats, active_memory_never_touched_is_not_resident) {
  const Held held(GetParam(), "untouched", "dirty_decay_ms:-1");
  const Json stats = check(held);
  expect_near(part(stats, "active"), held.truth("active") / 2, "active", stats);
}

TEST_P(Stats, a_heap_that_is_not_jemallocs) {
  const Held held(GetParam(), "other", "dirty_decay_ms:-1");
  const Json stats = check(held);
  expect_near(part(stats, "other_heap"), 80 * mib, "other heap", stats);
}

INSTANTIATE_TEST_SUITE_P(Linkage, Stats, ::testing::Values("held", "static_held", "stripped_held"),
                         [](const auto& info) { return info.param; });

LIVE_TEST(StatsRedis, sums_to_rss) {
  const std::string port = free_port();
  Process redis({"redis-server", "--port", port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"},
                {.environment = {{"MALLOC_CONF", "dirty_decay_ms:200,muzzy_decay_ms:60000"}}});
  redis.wait_for_out("Ready to accept connections");
  const Outcome load =
      Process({"redis-benchmark", "-p", port, "-q", "-t", "set", "-n", "100000", "-r", "100000", "-d", "400"})
          .wait(120s);
  ASSERT_EQ(load.status, 0) << load.err;
  ASSERT_EQ(Process({"redis-cli", "-p", port, "flushall"}).wait().status, 0);
  const Outcome outcome = run_jemtrace({"stats", "-f", "json", "-p", std::to_string(redis.pid())});
  ASSERT_EQ(outcome.status, 0) << outcome.err;
  const Json stats = Json::parse(outcome.out);
  expect_sums_to_rss(stats, redis.pid());
  EXPECT_EQ(stats.at("reading").at("method"), "structures");
}

LIVE_TEST(StatsBadInput, a_process_that_is_gone_or_has_no_jemalloc) {
  EXPECT_EQ(run_jemtrace({"stats", "-p", "1073741823"}).status, 1);
  Process other({"/bin/sleep", "20"});
  const Outcome none = run_jemtrace({"stats", "-p", std::to_string(other.pid())});
  EXPECT_EQ(none.status, 3);
  EXPECT_NE(none.err.find("nothing selected uses jemalloc"), std::string::npos);
}

/// A memory cgroup (version 1, as these hosts have it) of its own.
class MemoryCgroup {
 public:
  MemoryCgroup() : path_("/sys/fs/cgroup/memory/jemtrace_test_" + std::to_string(::getpid())) {
    made_ = ::mkdir(path_.c_str(), 0755) == 0;
  }
  ~MemoryCgroup() { ::rmdir(path_.c_str()); }
  MemoryCgroup(const MemoryCgroup&) = delete;
  MemoryCgroup& operator=(const MemoryCgroup&) = delete;
  bool made() const { return made_; }
  /// A command that enters it first.
  Strings entering() const {
    return {"/bin/sh", "-c", "echo $$ > " + path_ + "/cgroup.procs && exec \"$@\"", "sh"};
  }
  void reclaim_all() const { std::ofstream(path_ + "/memory.force_empty") << "0\n"; }

 private:
  std::string path_;
  bool made_ = false;
};

LIVE_TEST(StatsCgroup, lazyfree_that_the_kernel_took_is_reclaimed) {
  const MemoryCgroup cgroup;
  if (!cgroup.made()) {
    GTEST_SKIP() << "no memory cgroup of version 1 can be made here";
  }
  {
    const Held held("held", "lazyfree", "dirty_decay_ms:-1,muzzy_decay_ms:-1", cgroup.entering());
    const uint64_t muzzy = held.truth("pmuzzy") * 4096;
    EXPECT_LE(held.stats().at("account").at("muzzy_not_resident_bytes").get<uint64_t>(), mib);
    cgroup.reclaim_all();
    const Json stats = held.stats();
    expect_sums_to_rss(stats, held.pid());
    const uint64_t lazy = part(stats, "muzzy_lazyfree");
    EXPECT_LT(lazy, muzzy / 10) << stats.dump(1);
    EXPECT_EQ(stats.at("account").at("muzzy_not_resident_bytes").get<uint64_t>() + lazy +
                  part(stats, "muzzy_redirtied"),
              muzzy);
  }
}

}  // namespace
}  // namespace jemtrace::live
