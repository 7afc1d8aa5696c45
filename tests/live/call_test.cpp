// mallctl called within a process: what it says is what the process itself reads, nothing else changes in it,
// and where it might harm it is refused.
#include <signal.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <iostream>
#include <sstream>
#include <thread>

#include "cli/stats_call.hpp"
#include "live.hpp"
#include "read/call/prof.hpp"
#include "read/call/reading.hpp"

namespace jemtrace::live {
namespace {

using cli::Callee;

/// `controlled`, with lines that are sent and answers that are read apart.
class Quiet {
 public:
  explicit Quiet(std::string_view name, const std::string& malloc_conf = "")
      : process_({workload(name)}, {.environment = {{"MALLOC_CONF", malloc_conf}}, .with_stdin = true}) {
    process_.wait_for_out("done=start\n");
    process_.wait_for_syscall(SYS_read);
  }
  pid_t pid() const { return process_.pid(); }
  void send(const std::string& line) {
    process_.send(line);
    process_.wait_for_syscall(SYS_read);
  }
  Block ask(const std::string& line) {
    const size_t before = process_.out().size();
    process_.send(line);
    wait_until("an answer", [&] { return process_.out().find("\ndone=", before) != std::string::npos; });
    process_.wait_for_syscall(SYS_read);
    return parse_block(process_.out().substr(before));
  }
  Process& process() { return process_; }

 private:
  Process process_;
};

std::unique_ptr<Callee> open(pid_t pid) {
  auto callee = Callee::open(pid);
  if (!callee) {
    throw std::runtime_error(callee.error().message());
  }
  return std::move(*callee);
}

ledger::Reading read_all(Callee& callee, const read::CallOptions& options = {}) {
  auto reading = read::call(callee.caller(), options);
  if (!reading) {
    throw std::runtime_error(reading.error().message());
  }
  return std::move(*reading);
}

/// Why it cannot be read; empty when it can.
std::string refusal(pid_t pid) {
  auto callee = Callee::open(pid);
  if (!callee) {
    return callee.error().message();
  }
  const auto reading = read::call((*callee)->caller(), {});
  return reading ? "" : reading.error().message();
}

void expect_equal(const ledger::Reading& reading, const Block& own) {
  EXPECT_EQ(reading.global.allocated, own.number("stats.allocated"));
  EXPECT_EQ(reading.global.active, own.number("stats.active"));
  EXPECT_EQ(reading.global.metadata, own.number("stats.metadata"));
  EXPECT_EQ(reading.global.resident, own.number("stats.resident"));
  EXPECT_EQ(reading.global.mapped, own.number("stats.mapped"));
  EXPECT_EQ(reading.global.retained, own.number("stats.retained"));
  ASSERT_FALSE(reading.arenas.empty());
  const ledger::ArenaReading& arena = reading.arenas.front();
  const auto of_arena = [&](const std::string& name) { return own.number("stats.arenas.0." + name); };
  EXPECT_EQ(arena.active_pages, of_arena("pactive"));
  EXPECT_EQ(arena.dirty.pages, of_arena("pdirty"));
  EXPECT_EQ(arena.muzzy.pages, of_arena("pmuzzy"));
  EXPECT_EQ(arena.retained.pages, of_arena("retained") / 4096);
  EXPECT_EQ(arena.base_bytes, of_arena("base"));
  EXPECT_EQ(arena.internal_bytes, of_arena("internal"));
  EXPECT_EQ(arena.tcache_bytes, of_arena("tcache_bytes"));
  EXPECT_EQ(arena.allocated_bytes, of_arena("small.allocated") + of_arena("large.allocated"));
  EXPECT_EQ(arena.dirty_decay.npurge, of_arena("dirty_npurge"));
  EXPECT_EQ(arena.dirty_decay.nmadvise, of_arena("dirty_nmadvise"));
  EXPECT_EQ(arena.dirty_decay.purged_pages, of_arena("dirty_purged"));
  EXPECT_EQ(arena.dirty_decay.time_ms, static_cast<int64_t>(own.number("arena.0.dirty_decay_ms")));
  EXPECT_EQ(arena.muzzy_decay.time_ms, static_cast<int64_t>(own.number("arena.0.muzzy_decay_ms")));
}

class Call : public ::testing::TestWithParam<const char*> {};

TEST_P(Call, says_what_the_process_reads_itself) {
  Quiet quiet(GetParam(), "dirty_decay_ms:20,muzzy_decay_ms:30,narenas:1");
  quiet.ask("work 10");
  const Block own = quiet.ask("values");
  const auto callee = open(quiet.pid());
  const ledger::Reading reading = read_all(*callee, {.classes = true});
  expect_equal(reading, own);
  EXPECT_EQ(reading.epoch, own.number("epoch"));
  EXPECT_EQ(reading.options.at("dirty_decay_ms"), "20");
  EXPECT_EQ(reading.options.at("narenas"), "1");
  EXPECT_EQ(reading.options.at("thp"), "default");
  ASSERT_GT(reading.classes.size(), 200u);
  EXPECT_EQ(reading.classes[2].bytes, 32u);
  EXPECT_EQ(reading.classes[2].blocks, own.number("stats.arenas.0.bins.2.curregs"));
  for (const ledger::SizeClass& one : reading.classes) {
    if (one.large) {
      EXPECT_EQ(one.bytes, 16384u);
      EXPECT_EQ(one.blocks, own.number("stats.arenas.0.lextents.0.curlextents"));
      break;
    }
  }
  EXPECT_EQ(quiet.ask("values").number("epoch"), own.number("epoch") + 1) << "reading has written epoch";
}

TEST_P(Call, writes_epoch_when_told_to) {
  Quiet quiet(GetParam(), "narenas:1");
  const auto callee = open(quiet.pid());
  const ledger::Reading first = read_all(*callee);
  quiet.ask("work 3");
  const ledger::Reading stale = read_all(*callee);
  const ledger::Reading fresh = read_all(*callee, {.epoch = true});
  EXPECT_EQ(stale.global.allocated, first.global.allocated);
  EXPECT_GT(fresh.global.allocated, stale.global.allocated);
  EXPECT_EQ(*fresh.epoch, *stale.epoch + 1);
}

TEST_P(Call, sets_and_purges_and_what_is_read_back_confirms_it) {
  Quiet quiet(GetParam(), "dirty_decay_ms:-1,muzzy_decay_ms:-1");
  quiet.ask("work 3");
  EXPECT_GT(quiet.ask("values").number("stats.arenas.0.pdirty"), 0u);
  const auto callee = open(quiet.pid());

  cli::CallOptions options{.wanted = true, .purge = true};
  options.sets = {{"dirty_decay_ms", 777}, {"background_thread", 1}};
  const auto actions = cli::act(*callee, options);
  ASSERT_TRUE(actions) << actions.error().message();
  for (const read::Change& change : actions->changes) {
    EXPECT_TRUE(change.confirmed()) << change.name << " " << change.error;
  }
  const Block own = quiet.ask("values");
  EXPECT_EQ(own.number("stats.arenas.0.pdirty"), 0u);
  EXPECT_EQ(own.number("arena.0.dirty_decay_ms"), 777u);
  EXPECT_EQ(own.number("background_thread"), 1u);
  EXPECT_LT(*actions->rss_after, *actions->rss_before);
}

INSTANTIATE_TEST_SUITE_P(Images, Call, ::testing::Values("controlled", "static_controlled"),
                         [](const auto& test) { return std::string(test.param); });

TEST(CallRefuses, an_image_without_the_symbol) {
  Quiet quiet("stripped_controlled");
  EXPECT_NE(refusal(quiet.pid()).find("no symbol says where mallctl is"), std::string::npos);
}

TEST(CallRefuses, a_process_without_jemalloc) {
  Process sleep({"/bin/sleep", "60"});
  wait_until("sleep",
             [&] { return refusal(sleep.pid()).find("does not use jemalloc") != std::string::npos; });
}

TEST(CallRefuses, a_traced_thread) {
  Quiet quiet("controlled");
  ASSERT_EQ(ptrace(PTRACE_SEIZE, quiet.pid(), 0, 0), 0);
  const std::string reason = refusal(quiet.pid());
  EXPECT_NE(reason.find("it is traced by pid " + std::to_string(getpid())), std::string::npos) << reason;
}

TEST(CallRefuses, a_thread_with_a_seccomp_filter) {
  Quiet quiet("controlled");
  quiet.ask("seccomp");
  EXPECT_NE(refusal(quiet.pid()).find("seccomp"), std::string::npos) << refusal(quiet.pid());
}

TEST(CallRefuses, a_process_that_ignores_segv) {
  Quiet quiet("controlled");
  quiet.ask("ignore");
  EXPECT_NE(refusal(quiet.pid()).find("ignores SIGSEGV"), std::string::npos) << refusal(quiet.pid());
}

TEST(CallRefuses, a_stopped_process) {
  Quiet quiet("controlled");
  quiet.process().signal(SIGSTOP);
  EXPECT_NE(refusal(quiet.pid()).find("it is stopped"), std::string::npos) << refusal(quiet.pid());
}

class CallRefusesWhere : public ::testing::TestWithParam<const char*> {
 protected:
  static void expect_refusal(const char* command, const char* because) {
    Quiet quiet(GetParam());
    quiet.send(command);
    const std::string reason = refusal(quiet.pid());
    EXPECT_NE(reason.find(because), std::string::npos) << reason;
    quiet.send("leave");
    EXPECT_EQ(refusal(quiet.pid()), "");
  }
};

TEST_P(CallRefusesWhere, it_is_in_a_signal_handler) {
  expect_refusal("handler", "it is in a signal handler");
}

TEST_P(CallRefusesWhere, jemalloc_is_on_the_stack) {
  expect_refusal("inside", "a function of jemalloc is on its stack");
}

INSTANTIATE_TEST_SUITE_P(Images, CallRefusesWhere, ::testing::Values("controlled", "static_controlled"),
                         [](const auto& test) { return std::string(test.param); });

/// `key=value` lines behind the first block.
Block last_block(const std::string& text) {
  return parse_blocks(text).back();
}

struct Tally {
  int readings = 0, refused = 0;
  std::string refusal;
  std::chrono::nanoseconds longest{0};
};

/// Reads until the process ends or `most` readings are made; every other one writes epoch.
void read_on(Process& process, int most, Tally& tally) {
  auto callee = Callee::open(process.pid());
  while (callee && tally.readings < most && !process.ended()) {
    const auto reading = read::call((*callee)->caller(), {.epoch = tally.readings % 2 == 0});
    if (reading) {
      tally.readings++;
    } else if (reading.error().code == Errc::gone) {
      break;
    } else if (!process.ended()) {
      tally.refused++;
      tally.refusal = reading.error().message();
    }
    tally.longest = std::max(tally.longest, (*callee)->caller().longest_pause());
  }
}

class BusyProcess : public ::testing::TestWithParam<const char*> {};

// Oracle: an untouched run with the same arguments prints the same.
TEST_P(BusyProcess, runs_as_if_it_had_never_been_asked) {
  const Strings command = {workload(GetParam()), "rounds=40"};
  const Block untouched = last_block(Process(command).wait(120s).out);
  ASSERT_EQ(untouched.number("errors"), 0u);
  const int wanted = number_from_environment("JEMTRACE_READINGS", 200);
  Tally tally;
  int runs = 0;
  while (tally.readings < wanted) {
    Process process(command);
    process.wait_for_out("start=1");
    read_on(process, wanted, tally);
    const Outcome outcome = process.wait(300s);
    ASSERT_EQ(outcome.status, 0) << outcome.err;
    const Block touched = last_block(outcome.out);
    EXPECT_EQ(touched.number("checksum"), untouched.number("checksum"));
    EXPECT_EQ(touched.number("errors"), 0u);
    runs++;
    ASSERT_LT(tally.refused, 20) << tally.refusal;
    std::cout << tally.readings << " readings in " << runs << " runs, " << tally.refused
              << " refused, the longest pause of a thread "
              << std::chrono::duration<double, std::milli>(tally.longest).count() << " ms" << std::endl;
  }
}

INSTANTIATE_TEST_SUITE_P(Images, BusyProcess, ::testing::Values("busy", "static_busy"),
                         [](const auto& test) { return std::string(test.param); });

TEST(Busy, gets_every_signal_that_comes_meanwhile) {
  Process process({workload("busy"), "rounds=20"});
  process.wait_for_out("start=1");
  const auto callee = open(process.pid());
  uint64_t sent = 0;
  while (!process.ended() && sent < 300) {
    kill(process.pid(), SIGRTMIN);
    sent++;
    (void)read::call(callee->caller(), {});
  }
  const Outcome outcome = process.wait(120s);
  ASSERT_EQ(outcome.status, 0) << outcome.err;
  const Block block = last_block(outcome.out);
  EXPECT_EQ(block.number("errors"), 0u);
  EXPECT_LE(block.number("signals"), sent);
  EXPECT_GE(block.number("signals") + 1, sent);  // the last one may have met a process at its end
}

// By another process: who traces its own child takes the news of its end from itself.
TEST(Busy, may_be_killed_at_any_time) {
  for (int i = 0; i < 10; i++) {
    Process process({workload("busy"), "rounds=1000"});
    process.wait_for_out("start=1");
    std::thread killer([&] {
      std::this_thread::sleep_for(milliseconds(50 + 13 * i));
      process.signal(SIGKILL);
    });
    Outcome outcome;
    do {
      outcome = run_jemtrace(
          {"stats", "-p", std::to_string(process.pid()), "--mallctl=call", "--epoch", "--classes"});
    } while (outcome.status == 0);
    killer.join();
    EXPECT_LT(outcome.status, 4) << outcome.err;
    EXPECT_EQ(process.wait().status, 128 + SIGKILL);
  }
}

// Who ends in the middle of a call leaves a thread with wrong registers.
TEST(Busy, goes_on_when_jemtrace_is_interrupted) {
  const Strings command = {workload("busy"), "rounds=100"};
  const Block untouched = last_block(Process(command).wait(120s).out);
  Process process(command);
  process.wait_for_out("start=1");
  int interrupted = 0;
  for (int i = 0; i < 40 && !process.ended(); i++) {
    Process jemtrace(
        {jemtrace_path(), "stats", "-p", std::to_string(process.pid()), "--mallctl=call", "--epoch"});
    std::this_thread::sleep_for(milliseconds(10 + 2 * i));
    jemtrace.signal(i % 2 == 0 ? SIGINT : SIGTERM);
    interrupted += jemtrace.wait().status > 128 ? 1 : 0;
  }
  const Outcome outcome = process.wait(120s);
  ASSERT_EQ(outcome.status, 0) << outcome.err;
  EXPECT_EQ(last_block(outcome.out).number("checksum"), untouched.number("checksum"));
  EXPECT_EQ(last_block(outcome.out).number("errors"), 0u);
  EXPECT_GT(interrupted, 0);
}

TEST(CallProf, says_that_profiling_is_not_enabled) {
  Quiet quiet("controlled");
  const Outcome outcome = run_jemtrace({"prof", "-p", std::to_string(quiet.pid()), "--activate"});
  EXPECT_EQ(outcome.status, 1);
  EXPECT_NE(outcome.err.find("profiling is not enabled in pid"), std::string::npos) << outcome.err;
  EXPECT_NE(outcome.err.find("MALLOC_CONF=prof:true"), std::string::npos) << outcome.err;
}

TEST(CallProf, dumps_and_switches_on_and_off) {
  Quiet quiet("controlled", "prof:true,prof_active:false,lg_prof_sample:10,prof_recent_alloc_max:100");
  const std::string pid = std::to_string(quiet.pid());
  const TemporaryFile file;
  Outcome outcome = run_jemtrace({"prof", "-p", pid, "--activate"});
  EXPECT_EQ(outcome.status, 0) << outcome.err;
  EXPECT_NE(outcome.out.find("prof.active: false -> true"), std::string::npos) << outcome.out;
  quiet.ask("work 2");
  outcome = run_jemtrace({"prof", "-p", pid, "--dump", file.path()});
  EXPECT_EQ(outcome.status, 0) << outcome.err;
  EXPECT_EQ(file.read().rfind("heap_v2/", 0), 0u) << file.read().substr(0, 200);
  outcome = run_jemtrace({"prof", "-p", pid, "--recent", file.path()});
  EXPECT_EQ(outcome.status, 0) << outcome.err;
  EXPECT_TRUE(Json::accept(file.read())) << file.read().substr(0, 500);
  EXPECT_NE(file.read().find("recent_alloc"), std::string::npos) << file.read().substr(0, 500);
  outcome = run_jemtrace({"prof", "-p", pid, "--dump", "/no/such/folder/file"});
  EXPECT_EQ(outcome.status, 1);
  outcome = run_jemtrace({"prof", "-p", pid, "--deactivate"});
  EXPECT_NE(outcome.out.find("prof.active: true -> false"), std::string::npos) << outcome.out;
  EXPECT_EQ(run_jemtrace({"prof", "-p", pid, "--dump", "relative"}).status, 2);
}

TEST(CallStats, prints_what_it_changed) {
  Quiet quiet("controlled", "dirty_decay_ms:10000");
  const Outcome outcome = run_jemtrace({"stats", "-p", std::to_string(quiet.pid()), "--mallctl=call",
                                        "--epoch", "--set", "dirty_decay_ms=500", "--purge"});
  EXPECT_EQ(outcome.status, 0) << outcome.err;
  EXPECT_NE(outcome.out.find("10000 -> 500"), std::string::npos) << outcome.out;
  EXPECT_NE(outcome.out.find("purge of all arenas: RSS"), std::string::npos) << outcome.out;
  EXPECT_EQ(quiet.ask("values").number("arena.0.dirty_decay_ms"), 500u);
}

}  // namespace
}  // namespace jemtrace::live
