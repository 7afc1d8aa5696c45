#include "serve/accounts.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "serve/encode.hpp"

namespace jemtrace::serve {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

constexpr uint64_t second = 1'000'000'000;

ledger::TargetInfo process(const std::string& comm, const std::string& cgroup = "/app", pid_t pid = 1) {
  ledger::TargetInfo info;
  info.pid = pid;
  info.comm = comm;
  info.cgroup = cgroup;
  info.images.push_back({.version = "5.3.0", .linkage = "shared", .tier = "recovered"});
  return info;
}

Work purges(uint64_t calls, jt_transition transition = JT_DIRTY_MUZZY) {
  Work work;
  ledger::Histogram histogram;
  for (uint64_t i = 0; i < calls; ++i) {
    histogram.record(50'000, 1, 4096);
  }
  work.add(transition, JT_PAYER_APP, histogram);
  return work;
}

std::string text(Accounts& accounts, const std::map<uint64_t, Work>& live, uint64_t now_ns = second) {
  return encode(accounts.expose(live, Own{}, now_ns, 0), Format::text);
}

/// Series about targets.
size_t target_series(Accounts& accounts, uint64_t now_ns) {
  size_t count = 0;
  for (const Family& family : accounts.expose({}, Own{}, now_ns, 0).families) {
    count +=
        static_cast<size_t>(std::count_if(family.series.begin(), family.series.end(),
                                          [](const Series& series) { return series.target != nullptr; }));
  }
  return count;
}

TEST(Accounts, processes_of_one_name_and_cgroup_are_one_target) {
  Accounts accounts({});
  accounts.begin(1, process("redis"), 0);
  accounts.begin(2, process("redis"), 0);
  EXPECT_THAT(
      text(accounts, {{1, purges(3)}, {2, purges(4)}}),
      HasSubstr(
          "jemtrace_purged_bytes_total{name=\"redis\",cgroup=\"/app\",transition=\"dirty_muzzy\"} 28672\n"));
}

TEST(Accounts, what_a_process_did_stays_counted_when_it_has_ended) {
  Accounts accounts({});
  accounts.begin(1, process("redis"), 0);
  accounts.begin(2, process("redis"), 0);
  accounts.end(1, purges(5), second);
  const std::string after = text(accounts, {{2, purges(4)}});
  EXPECT_THAT(after, HasSubstr("transition=\"dirty_muzzy\"} 36864\n"));
  EXPECT_THAT(after, HasSubstr("jemtrace_target_processes{name=\"redis\",cgroup=\"/app\"} 1\n"));
}

TEST(Accounts, info_names_the_container_and_the_pod) {
  Accounts accounts({});
  ledger::TargetInfo in_pod = process("redis", "/kubepods/pod7/x");
  in_pod.container = {"containerd", "0123456789ab", "0f4c2d1e-1"};
  accounts.begin(1, in_pod, 0);
  ledger::TargetInfo in_docker = process("redis", "/docker/x");
  in_docker.container = {"docker", "ba9876543210", ""};
  accounts.begin(2, in_docker, 0);
  accounts.begin(3, process("redis", "/user"), 0);
  const std::string all = text(accounts, {});
  const std::string image = "version=\"5.3.0\",tier=\"recovered\",linkage=\"shared\"";
  EXPECT_THAT(all, HasSubstr(image + ",container=\"0123456789ab\",pod_uid=\"0f4c2d1e-1\"} 1\n"));
  EXPECT_THAT(all, HasSubstr(image + ",container=\"ba9876543210\"} 1\n"));
  EXPECT_THAT(all, HasSubstr(image + "} 1\n"));
}

TEST(Accounts, targets_beyond_the_limit_are_folded_into_other) {
  Accounts accounts({.max_targets = 1});
  accounts.begin(1, process("a"), 0);
  accounts.begin(2, process("b"), 0);
  accounts.begin(3, process("c"), 0);
  const std::string all = text(accounts, {{1, purges(1)}, {2, purges(2)}, {3, purges(3)}});
  EXPECT_THAT(
      all,
      HasSubstr(
          "jemtrace_purged_bytes_total{name=\"other\",cgroup=\"other\",transition=\"dirty_muzzy\"} 20480\n"));
  EXPECT_THAT(all, HasSubstr("jemtrace_folded_targets 2\n"));
  EXPECT_THAT(all, HasSubstr("jemtrace_targets 3\n"));
  EXPECT_THAT(all, Not(HasSubstr("\"b\"")));
}

TEST(Accounts, an_ended_target_keeps_its_place_until_it_has_been_scraped) {
  Accounts accounts({.max_targets = 1, .keep_ended_ns = 100 * second});
  accounts.begin(1, process("a"), 0);
  accounts.end(1, purges(1), 0);
  accounts.begin(2, process("b"), 19 * second);
  EXPECT_THAT(text(accounts, {}, 19 * second), HasSubstr("name=\"a\""));
  accounts.begin(3, process("c"), 21 * second);
  const std::string later = text(accounts, {}, 21 * second);
  EXPECT_THAT(later, HasSubstr("name=\"c\""));
  EXPECT_THAT(later, Not(HasSubstr("name=\"a\"")));
  EXPECT_THAT(later, HasSubstr("jemtrace_expired_label_sets_total 1\n"));
}

TEST(Accounts, an_ended_target_is_forgotten_after_its_time) {
  Accounts accounts({.keep_ended_ns = 100 * second});
  accounts.begin(1, process("a"), 0);
  accounts.end(1, purges(1), 0);
  EXPECT_GT(target_series(accounts, 99 * second), 0u);
  EXPECT_EQ(target_series(accounts, 100 * second), 0u);
}

TEST(Accounts, a_day_of_churn_leaves_memory_and_series_bounded) {
  constexpr uint64_t processes = 50'000;
  constexpr uint64_t day = 86'400 * second;
  Accounts accounts({.max_targets = 100});
  size_t most_series = 0;
  uint64_t bytes = 0;
  for (uint64_t i = 1; i <= processes; ++i) {
    const uint64_t now = i * day / processes;
    // Half of them come from a pool of 40 names, half have a cgroup of their own, as jobs have.
    accounts.begin(i,
                   i % 2 == 0 ? process("worker-" + std::to_string(i % 80))
                              : process("job", "/job/" + std::to_string(i)),
                   now);
    accounts.set_findings(i, {{"DECAY_NEVER", true}});
    accounts.end(i, purges(2), now);
    bytes += 2 * 4096;
    if (i % 1000 == 0) {
      most_series = std::max(most_series, target_series(accounts, now));
    }
  }
  EXPECT_LE(accounts.targets(), 100u);
  EXPECT_EQ(accounts.processes(), 0u);
  EXPECT_LE(most_series, 101u * 5);
  EXPECT_GT(most_series, 100u);
  EXPECT_THAT(text(accounts, {}, day), HasSubstr("jemtrace_seen_targets_total 50000\n"));
}

TEST(Accounts, counters_never_go_backwards_while_processes_come_and_go) {
  Accounts accounts({.max_targets = 3});
  std::map<std::string, double> last;
  std::map<uint64_t, Work> live;
  uint64_t next = 1;
  for (uint64_t step = 0; step < 500; ++step) {
    accounts.begin(next, process("p" + std::to_string(next * 7 % 6)), step);
    live[next++] = purges(1 + step % 3);
    if (step % 3 != 0) {
      const auto victim = std::next(live.begin(), static_cast<long>(step * 5 % live.size()));
      accounts.end(victim->first, victim->second, step);
      live.erase(victim);
    }
    for (const Family& family : accounts.expose(live, Own{}, step, 0).families) {
      for (const Series& series : family.series) {
        if (family.name != "jemtrace_purged_bytes") {
          continue;
        }
        double& before = last[series.target->front().value];
        ASSERT_GE(series.value, before) << "step " << step;
        before = series.value;
      }
    }
  }
  EXPECT_EQ(last.size(), 4u);  // three and other
}

TEST(Accounts, pid_is_a_label_only_on_request) {
  Accounts plain({});
  plain.begin(1, process("redis", "/app", 4242), 0);
  EXPECT_THAT(text(plain, {}), Not(HasSubstr("4242")));
  Accounts with_pid({.pid_label = true});
  with_pid.begin(1, process("redis", "/app", 4242), 0);
  EXPECT_THAT(text(with_pid, {}), HasSubstr("pid=\"4242\""));
}

TEST(Accounts, unknown_is_left_out_and_makes_the_sum_unknown) {
  Accounts accounts({});
  accounts.begin(1, process("redis"), 0);
  accounts.begin(2, process("redis"), 0);
  accounts.measure(1, {.rss_bytes = 10, .lazyfree_bytes = 5});
  accounts.measure(2, {.rss_bytes = 20});
  const std::string all = text(accounts, {});
  EXPECT_THAT(all, HasSubstr("jemtrace_rss_bytes{name=\"redis\",cgroup=\"/app\"} 30\n"));
  EXPECT_THAT(all, Not(HasSubstr("lazyfree")));
  EXPECT_THAT(all, Not(HasSubstr("state_bytes")));
}

TEST(Accounts, hostile_names_make_valid_labels) {
  Accounts accounts({});
  accounts.begin(1, process("a\"b\n\xff{}", std::string("/x/") + std::string(5000, 'y') + "\xc3\xa9"), 0);
  const std::string all = text(accounts, {});
  EXPECT_THAT(all, HasSubstr("name=\"a\\\"b\\\\x0a\\\\xff{}\""));
  EXPECT_THAT(all, HasSubstr("yyy..."));
  EXPECT_LT(all.size(), 8000u);
}

TEST(Accounts, a_finding_is_one_while_it_holds_and_zero_afterwards) {
  Accounts accounts({});
  accounts.begin(1, process("redis"), 0);
  accounts.set_findings(1, {{"LAZYFREE_INFLATED", true}});
  EXPECT_THAT(text(accounts, {}), HasSubstr("id=\"LAZYFREE_INFLATED\"} 1\n"));
  accounts.set_findings(1, {{"LAZYFREE_INFLATED", false}});
  EXPECT_THAT(text(accounts, {}), HasSubstr("id=\"LAZYFREE_INFLATED\"} 0\n"));
}

TEST(Accounts, the_slowest_recent_purge_is_the_exemplar) {
  Accounts accounts({});
  accounts.begin(1, process("redis"), 0);
  const auto exemplar = [&](uint64_t now_ns) {
    const Exposition exposition = accounts.expose({{1, purges(1)}}, Own{}, now_ns, 0);
    return exposition.families.front().series.at(0).point->exemplar;
  };
  accounts.slow(1, JT_DIRTY_MUZZY, JT_PAYER_APP, {.pid = 1, .tid = 11, .latency_ns = 900}, second);
  accounts.slow(1, JT_DIRTY_MUZZY, JT_PAYER_APP, {.pid = 1, .tid = 12, .latency_ns = 800}, 2 * second);
  EXPECT_EQ(exemplar(2 * second)->tid, 11);
  accounts.slow(1, JT_DIRTY_MUZZY, JT_PAYER_APP, {.pid = 1, .tid = 13, .latency_ns = 100}, 62 * second);
  EXPECT_EQ(exemplar(62 * second)->tid, 13);
  EXPECT_FALSE(exemplar(130 * second));
}

TEST(WorkSinceDistrust, what_was_told_is_not_taken_back) {
  ledger::Totals told;
  told.transitions[JT_DIRTY_RETAINED].by_payer[JT_PAYER_APP].record(1000, 1, 4096);
  ledger::Totals now = told;
  now.transitions[JT_DIRTY_RETAINED].by_payer[JT_PAYER_APP].record(1000, 1, 4096);
  const Work work = work_since_distrust(told, now);
  EXPECT_EQ(work.purges.at({JT_DIRTY_RETAINED, JT_PAYER_APP}).count(), 1u);
  EXPECT_EQ(work.purges.at({JT_UNKNOWN_RETAINED, JT_PAYER_APP}).count(), 1u);
}

TEST(Accounts, estimates_that_shrink_do_not_take_a_counter_back) {
  Accounts accounts({});
  Own own;
  own.bpf_run_ns = 2 * second;
  (void)accounts.expose({}, own, 0, 0);
  own.bpf_run_ns = second;
  EXPECT_THAT(encode(accounts.expose({}, own, 0, 0), Format::text),
              HasSubstr("jemtrace_bpf_run_seconds_total 2\n"));
}

}  // namespace
}  // namespace jemtrace::serve
