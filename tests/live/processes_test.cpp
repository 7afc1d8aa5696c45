// More than one process, and processes that come and go. Oracle: every process prints its own counters.
#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "live.hpp"

namespace jemtrace::live {
namespace {

constexpr const char* both_decay = "dirty_decay_ms:20,muzzy_decay_ms:20";

LIVE_TEST(Processes, are_all_traced_when_none_is_selected) {
  Controlled first("static_controlled", both_decay);
  Controlled second("static_controlled", "dirty_decay_ms:20,muzzy_decay_ms:0");
  Controlled third("controlled", both_decay);
  Controlled* const targets[] = {&first, &second, &third};
  Tracer tracer({});
  Counters before[3], after[3];
  for (size_t i = 0; i < 3; i++) {
    tracer.wait_for(targets[i]->pid());
    before[i] = targets[i]->counters();
  }
  first.command("work 10");
  second.command("work 20");
  third.command("work 15");
  for (size_t i = 0; i < 3; i++) {
    after[i] = targets[i]->counters();
  }
  const Trace run = tracer.stop();

  EXPECT_EQ(run.outcome.status, 0) << run.outcome.err;
  const Output output = run.output();
  for (size_t i = 0; i < 3; i++) {
    const pid_t pid = targets[i]->pid();
    EXPECT_GT(after[i].dirty_npurge, before[i].dirty_npurge);
    expect_equal_to_jemalloc(output.summary_of(pid), output.target(pid), after[i] - before[i]);
  }
}

// What programs without a jemalloc do to their memory is no loss of anybody's.
LIVE_TEST(Processes, that_are_no_targets_take_nothing_from_the_others) {
  Controlled target("static_controlled", both_decay);
  Tracer tracer({});
  tracer.wait_for(target.pid());
  const Counters before = target.counters();
  target.command("work 10");
  const size_t size = 1 << 20;
  void* memory = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  ASSERT_NE(memory, MAP_FAILED);
  ::madvise(memory, size, MADV_DONTNEED);
  ::mmap(memory, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1, 0);
  ::munmap(memory, size);
  const Counters truth = target.counters() - before;
  const Output output = tracer.stop().output();

  expect_equal_to_jemalloc(output.summary_of(target.pid()), output.target(target.pid()), truth);
}

LIVE_TEST(Processes, that_start_later_count_from_their_birth) {
  Controlled early("static_controlled", both_decay);
  Tracer tracer({});
  tracer.wait_for(early.pid());
  Controlled late("static_controlled", both_decay);
  late.command("work 15");
  late.command("purge");
  const Counters truth = late.counters();
  EXPECT_EQ(late.quit().status, 0);

  EXPECT_EQ(counters_of(tracer.stop().output().summary_of(late.pid())), truth);
}

LIVE_TEST(Processes, can_be_selected_by_pid_so_that_others_are_left_out) {
  Controlled chosen("static_controlled", both_decay);
  Controlled other("static_controlled", both_decay);
  Tracer tracer({"-p", std::to_string(chosen.pid())});
  tracer.wait_for(chosen.pid());
  const Counters before = chosen.counters();
  other.command("work 10");
  chosen.command("work 10");
  const Counters truth = chosen.counters() - before;
  const Output output = tracer.stop().output();

  EXPECT_EQ(counters_of(output.summary_of(chosen.pid())), truth);
  EXPECT_TRUE(output.summaries_of(other.pid()).empty());
}

LIVE_TEST(Processes, can_be_selected_by_a_list_of_pids) {
  Controlled first("static_controlled", both_decay);
  Controlled second("controlled", both_decay);
  Tracer tracer({"-p", std::to_string(first.pid()) + "," + std::to_string(second.pid())});
  tracer.wait_for(first.pid());
  tracer.wait_for(second.pid());
  const Output output = tracer.stop().output();

  EXPECT_EQ(output.summaries_of(first.pid()).size(), 1u);
  EXPECT_EQ(output.summaries_of(second.pid()).size(), 1u);
}

LIVE_TEST(Processes, can_be_selected_by_name) {
  Controlled target("static_controlled", both_decay);  // comm is cut to 15 bytes
  Tracer tracer({"-n", "static_contr*"});
  tracer.wait_for(target.pid());
  const Counters before = target.counters();
  target.command("work 10");
  const Counters truth = target.counters() - before;

  EXPECT_EQ(counters_of(tracer.stop().output().summary_of(target.pid())), truth);
}

// The child's counters go on from the parent's, so what it did itself is the difference to those right after
// fork.
LIVE_TEST(Processes, that_fork_are_told_apart) {
  for (const char* conf : {"dirty_decay_ms:20,muzzy_decay_ms:20",
                           "dirty_decay_ms:20,muzzy_decay_ms:20,background_thread:true"}) {
    SCOPED_TRACE(conf);
    const Trace run = run_traced({workload("static_fork")}, {.environment = {{"MALLOC_CONF", conf}}});
    EXPECT_EQ(run.outcome.status, 0) << run.outcome.err;
    const std::vector<Block> blocks = parse_blocks(run.outcome.out);
    ASSERT_EQ(blocks.size(), 3u);
    const Output output = run.output();
    for (const Block& block : blocks) {
      const bool child = block.text("role") == "child";
      const Counters truth = child ? block.counters() - block.counters("base_") : block.counters();
      EXPECT_GT(truth.dirty_npurge, 0u);
      const Json summary = output.summary_of(block.pid());
      EXPECT_EQ(counters_of(summary), truth) << block.text("role");
      expect_no_losses(summary);
    }
  }
}

// exec starts jemalloc anew under the same pid: two lives, two summaries.
LIVE_TEST(Processes, that_exec_begin_again_from_zero) {
  const Trace run = run_traced({workload("static_exec")}, {.environment = {{"MALLOC_CONF", both_decay}}});
  EXPECT_EQ(run.outcome.status, 0) << run.outcome.err;
  const std::vector<Block> blocks = parse_blocks(run.outcome.out);
  ASSERT_EQ(blocks.size(), 2u);
  ASSERT_EQ(blocks[0].pid(), blocks[1].pid());
  const std::vector<Json> summaries = run.output().summaries_of(blocks[0].pid());
  ASSERT_EQ(summaries.size(), 2u);
  for (size_t i = 0; i < 2; i++) {
    EXPECT_GT(blocks[i].number("dirty_npurge"), 0u);
    EXPECT_EQ(counters_of(summaries[i]), blocks[i].counters()) << "stage " << i + 1;
  }
}

// What can be read of the pid is the next program's then.
LIVE_TEST(Processes, that_exec_keep_the_memory_they_had_before) {
  const std::string hold = " count=6000 size=16384 keep=1 rounds=2 sleep_ms=200 purge=0";
  // In the middle of an exec there is a moment with a new, empty memory: a sample may fall into it.
  constexpr int attempts = 4;
  constexpr uint64_t held_bytes = 50 << 20;
  uint64_t end_bytes = 0;
  for (int i = 0; i < attempts && end_bytes <= held_bytes; i++) {
    const Trace run =
        run_traced({"/bin/sh", "-c", "exec " + workload("static_exec") + hold},
                   {.environment = {{"MALLOC_CONF", "dirty_decay_ms:-1,muzzy_decay_ms:-1"}}}, {"-i", "50ms"});
    const std::vector<Block> blocks = parse_blocks(run.outcome.out);
    ASSERT_EQ(blocks.size(), 2u);
    const std::vector<Json> summaries = run.output().summaries_of(blocks[0].pid());
    ASSERT_EQ(summaries.size(), 2u);
    end_bytes = summaries[0]["rss"]["end_bytes"].get<uint64_t>();
  }
  EXPECT_GT(end_bytes, held_bytes);
}

/// Two processes printed their counters, and the summaries have the same.
void expect_two_counted(const Trace& run) {
  const std::vector<Block> blocks = parse_blocks(run.outcome.out);
  ASSERT_EQ(blocks.size(), 2u);
  const Output output = run.output();
  for (const Block& block : blocks) {
    EXPECT_GT(block.number("dirty_npurge"), 0u);
    EXPECT_EQ(counters_of(output.summary_of(block.pid())), block.counters());
  }
}

// A shell that runs programs: the shell has no jemalloc, its children have.
LIVE_TEST(Processes, below_a_command_without_jemalloc_are_traced) {
  const std::string batch = workload("static_batch") + " rounds=15";
  const Trace run = run_traced({"/bin/sh", "-c", batch + "; " + batch + "; exit 7"},
                               {.environment = {{"MALLOC_CONF", both_decay}}});
  EXPECT_EQ(run.outcome.status, 7) << run.outcome.err;
  expect_two_counted(run);
}

// They unmap as well, which is counted: more of them than there are places.
LIVE_TEST(Processes, behind_a_thousand_without_jemalloc_are_traced) {
  const std::string thousand = "i=0; while [ $i -lt 1100 ]; do /bin/true; i=$((i+1)); done; ";
  const Trace run =
      run_traced({"/bin/sh", "-c", thousand + "exec " + workload("static_batch") + " rounds=15"},
                 {.environment = {{"MALLOC_CONF", both_decay}}});
  const Block block = parse_block(run.outcome.out);
  const Json summary = run.output().summary_of(block.pid());
  EXPECT_EQ(counters_of(summary), block.counters());
  expect_no_losses(summary);
  EXPECT_TRUE(summary["exact"].get<bool>());
}

// The same inode, as after an upgrade in place, or when it was given to another file.
LIVE_TEST(Processes, of_a_file_with_other_contents_than_before_are_traced) {
  const TemporaryFile file;
  const auto run_as = [&](const std::string& program, const char* arguments) {
    return "cat " + program + " > " + file.path() + "; " + file.path() + " " + arguments + "; ";
  };
  const Trace run =
      run_traced({"/bin/sh", "-c",
                  "chmod 755 " + file.path() + "; " + run_as("/bin/true", "") +
                      run_as(workload("static_batch"), "rounds=15") + run_as(workload("static_steady"), "")},
                 {.environment = {{"MALLOC_CONF", both_decay}}});
  EXPECT_EQ(run.outcome.status, 0) << run.outcome.err;
  expect_two_counted(run);
}

// A breakpoint could be written over, or end up in the middle of what is written.
LIVE_TEST(Processes, whose_library_is_being_written_to_get_no_probe) {
  const Process any({workload("controlled")}, {.environment = {}, .with_stdin = true});
  std::string original;
  wait_until("its libjemalloc", [&] {
    std::ifstream maps("/proc/" + std::to_string(any.pid()) + "/maps");
    for (std::string line; std::getline(maps, line) && original.empty();) {
      original = line.find("libjemalloc") != std::string::npos ? line.substr(line.find('/')) : "";
    }
    return !original.empty();
  });
  const TemporaryFile library;
  std::filesystem::copy_file(original, library.path(), std::filesystem::copy_options::overwrite_existing);
  const Process::Options options{
      .environment = {{"LD_PRELOAD", library.path()}, {"MALLOC_CONF", both_decay}}};
  const auto images = [&] {
    const Trace run = run_traced({workload("batch")}, options);
    return run.output().target(parse_block(run.outcome.out).pid())["images"].dump();
  };
  const int writer = ::open(library.path().c_str(), O_RDWR);
  const std::string meanwhile = images();
  ::close(writer);
  EXPECT_NE(meanwhile.find("no probes: its file is being written to"), std::string::npos) << meanwhile;
  const std::string after = images();
  EXPECT_NE(after.find(library.path()), std::string::npos) << after;
  EXPECT_EQ(after.find("no probes"), std::string::npos) << after;
}

// As on a host where programs are built all day: each is another image, and there is room for 32.
LIVE_TEST(Processes, of_more_programs_than_there_is_room_for_are_traced_one_after_another) {
  const TemporaryFile file;
  const std::string script = "for i in $(seq 36); do cat " + workload("stripped_batch") + " > " +
                             file.path() + ".$i; echo $i >> " + file.path() + ".$i; chmod 755 " +
                             file.path() + ".$i; " + file.path() +
                             ".$i rounds=2 sleep_ms=0 purge=1 count=50; rm " + file.path() + ".$i; done";
  const Trace run = run_traced({"/bin/sh", "-c", script}, {.environment = {{"MALLOC_CONF", both_decay}}});
  EXPECT_EQ(run.outcome.status, 0) << run.outcome.err;
  const std::vector<Block> blocks = parse_blocks(run.outcome.out);
  ASSERT_EQ(blocks.size(), 36u);
  const Output output = run.output();
  for (const Block& block : blocks) {
    const Json summary = output.summary_of(block.pid());
    EXPECT_EQ(counters_of(summary), block.counters());
    expect_no_losses(summary);
  }
}

// A library that arrives in the middle of a process's life.
LIVE_TEST(Processes, that_load_jemalloc_later_are_traced_from_then_on) {
  const Trace run = run_traced({workload("dlopen")},
                               {.environment = {{"MALLOC_CONF", both_decay},
                                                {"GLIBC_TUNABLES", "glibc.rtld.optional_static_tls=4096"}}});
  ASSERT_EQ(run.outcome.status, 0) << run.outcome.err;
  const Block block = parse_block(run.outcome.out);
  EXPECT_GT(block.number("muzzy_npurge"), 0u);
  const Output output = run.output();
  expect_equal_to_jemalloc(output.summary_of(block.pid()), output.target(block.pid()), block.counters());
}

// The process ends while its threads are in the middle of purges: a summary, no crash, and at least what
// jemalloc had counted a moment before.
LIVE_TEST(Processes, may_exit_while_they_purge) {
  const std::pair<const char*, int> ways[] = {
      {"_exit", 0}, {"exit", 0}, {"return", 0}, {"kill", 128 + SIGKILL}};
  for (const auto& [how, status] : ways) {
    SCOPED_TRACE(how);
    const Trace run = run_traced({workload("static_exit_while_purging"), std::string("how=") + how},
                                 {.environment = {{"MALLOC_CONF", both_decay}}});
    EXPECT_EQ(run.outcome.status, status) << run.outcome.err;
    const Block block = parse_block(run.outcome.out);
    const Json summary = run.output().summary_of(block.pid());
    const Counters seen = counters_of(summary);
    const Counters least = block.counters("least_");
    EXPECT_GT(least.dirty_nmadvise, 0u);
    EXPECT_GE(seen.dirty_npurge, least.dirty_npurge);
    EXPECT_GE(seen.dirty_nmadvise, least.dirty_nmadvise);
    EXPECT_GE(seen.dirty_purged, least.dirty_purged);
    EXPECT_GE(seen.muzzy_nmadvise, least.muzzy_nmadvise);
    EXPECT_GE(seen.muzzy_purged, least.muzzy_purged);
  }
}

// Many short lives. Oracle: each prints its counters.
LIVE_TEST(Processes, that_live_shortly_are_not_lost) {
  std::string script;
  for (int i = 0; i < 10; i++) {
    script += workload("static_batch") + " rounds=3 sleep_ms=0 purge=1 & ";
  }
  const Trace run =
      run_traced({"/bin/sh", "-c", script + "wait"}, {.environment = {{"MALLOC_CONF", both_decay}}});
  const std::vector<Block> blocks = parse_blocks(run.outcome.out);
  ASSERT_EQ(blocks.size(), 10u);
  const Output output = run.output();
  for (const Block& block : blocks) {
    EXPECT_GT(block.number("dirty_npurge"), 0u);
    EXPECT_EQ(counters_of(output.summary_of(block.pid())), block.counters());
  }
}

}  // namespace
}  // namespace jemtrace::live
