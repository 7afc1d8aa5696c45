#include "collect/facts.hpp"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

namespace jemtrace::collect {
namespace {

TEST(ParseOomRecord, takes_the_victim_and_its_memory) {
  const auto kill = parse_oom_record(
      "3,1234,98765432,-;Memory cgroup out of memory: Killed process 4242 (a) b (c) total-vm:1048576kB, "
      "anon-rss:262144kB, file-rss:2048kB, shmem-rss:0kB, UID:0 pgtables:600kB oom_score_adj:0\n");
  ASSERT_TRUE(kill);
  EXPECT_EQ(kill->pid, 4242);
  EXPECT_EQ(kill->comm, "a) b (c");
  EXPECT_EQ(kill->at_ns, 98765432000u);
  EXPECT_EQ(kill->anon_rss_bytes, uint64_t{256} << 20);
  EXPECT_EQ(kill->file_rss_bytes, uint64_t{2} << 20);
}

TEST(ParseOomRecord, is_not_taken_in_by_other_lines) {
  EXPECT_FALSE(parse_oom_record(""));
  EXPECT_FALSE(parse_oom_record("6,1,2,-;usb 1-1: new device"));
  EXPECT_FALSE(parse_oom_record("6,1,2,-;Killed process x"));
  EXPECT_FALSE(parse_oom_record("Killed process 1 (a) total-vm:1kB"));
}

TEST(ReadFacts, a_forked_child_is_seen_and_one_that_called_exec_is_not) {
  const pid_t forked = ::fork();
  if (forked == 0) {
    ::pause();
    ::_exit(0);
  }
  const pid_t other = ::fork();
  if (other == 0) {
    ::execlp("sleep", "sleep", "60", nullptr);
    ::_exit(127);
  }
  ::usleep(300'000);
  const Facts facts = read_facts(ProcRoot(), ::getpid());
  ::kill(forked, SIGKILL);
  ::kill(other, SIGKILL);
  ::waitpid(forked, nullptr, 0);
  ::waitpid(other, nullptr, 0);
  ASSERT_TRUE(facts.children);
  ASSERT_EQ(facts.children->size(), 1u);
  EXPECT_EQ(facts.children->front().pid, forked);
  EXPECT_GT(facts.cpus.value_or(0), 0);
  EXPECT_EQ(facts.background_threads, 0u);
  EXPECT_TRUE(facts.asked_for);
}

TEST(MeasurePurge, is_a_price_that_can_be) {
  const auto ns = measure_purge_ns_per_page();
  ASSERT_TRUE(ns);
  EXPECT_GT(*ns, 5);
  EXPECT_LT(*ns, 20'000);
}

}  // namespace
}  // namespace jemtrace::collect
