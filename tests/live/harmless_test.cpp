// A target must not notice that it is watched, nor that its watcher dies at any moment.
#include <signal.h>

#include <fstream>
#include <random>
#include <thread>

#include "live.hpp"

namespace jemtrace::live {
namespace {

constexpr const char* both_decay = "dirty_decay_ms:20,muzzy_decay_ms:20";

int kills() {
  return number_from_environment("JEMTRACE_KILLS", 5);
}

milliseconds random_up_to(int ms) {
  static std::mt19937 random{std::random_device{}()};
  return milliseconds(std::uniform_int_distribution<int>(0, ms)(random));
}

/// A range of code in a process and where it lies in its file.
struct Code {
  uint64_t start, end, offset;
  std::string path;
};

std::vector<Code> code_of(pid_t pid) {
  std::vector<Code> code;
  std::ifstream maps("/proc/" + std::to_string(pid) + "/maps");
  for (std::string line; std::getline(maps, line);) {
    Code range;
    unsigned long start, end, offset;
    char rights[8], path[512] = "";
    if (sscanf(line.c_str(), "%lx-%lx %7s %lx %*s %*s %511s", &start, &end, rights, &offset, path) >= 4 &&
        rights[2] == 'x' && path[0] == '/') {
      code.push_back({start, end, offset, path});
    }
  }
  return code;
}

std::string read_at(const std::string& path, uint64_t offset, size_t length) {
  std::ifstream file(path, std::ios::binary);
  std::string bytes(length, '\0');
  file.seekg(static_cast<std::streamoff>(offset));
  file.read(bytes.data(), static_cast<std::streamsize>(length));
  bytes.resize(static_cast<size_t>(file.gcount()));
  return bytes;
}

/// Bytes of code that are not as in the file: where a breakpoint is, or was left.
size_t changed_code(pid_t pid) {
  size_t changed = 0;
  for (const Code& code : code_of(pid)) {
    const std::string in_memory =
        read_at("/proc/" + std::to_string(pid) + "/mem", code.start, code.end - code.start);
    const std::string in_file = read_at(code.path, code.offset, code.end - code.start);
    for (size_t i = 0; i < std::min(in_memory.size(), in_file.size()); i++) {
      changed += in_memory[i] != in_file[i];
    }
  }
  return changed;
}

// kill -9 at a random moment of attaching and tracing: the target works on, and its code is as before.
LIVE_TEST(Killed, jemtrace_leaves_nothing_in_its_target) {
  Controlled target("static_controlled", both_decay);
  ASSERT_EQ(changed_code(target.pid()), 0u);
  for (int i = 0; i < kills(); i++) {
    Process tracer({jemtrace_path(), "-p", std::to_string(target.pid())});
    const milliseconds alive = random_up_to(800);
    SCOPED_TRACE("killed after " + std::to_string(alive.count()) + " ms");
    const auto end = std::chrono::steady_clock::now() + alive;
    while (std::chrono::steady_clock::now() < end) {
      target.command("work 1");
    }
    tracer.signal(SIGKILL);
    EXPECT_EQ(tracer.wait().status, 128 + SIGKILL);
    target.command("work 3");
    wait_until("the target's code to be as in its file", [&] { return changed_code(target.pid()) == 0; });
  }
  const Outcome outcome = target.quit();
  EXPECT_EQ(outcome.status, 0) << outcome.err;
}

// Ended by a signal, the same, and at once.
LIVE_TEST(Ended, jemtrace_leaves_nothing_in_its_target) {
  Controlled target("static_controlled", both_decay);
  Tracer tracer({"-p", std::to_string(target.pid())});
  tracer.wait_for(target.pid());
  target.command("work 3");
  tracer.stop();
  EXPECT_EQ(changed_code(target.pid()), 0u);
  EXPECT_EQ(target.quit().status, 0);
}

// kill -9 of a jemtrace that watches the whole host, beside a program that churns with many threads.
LIVE_TEST(Killed, jemtrace_does_not_hurt_a_churning_program) {
  for (int i = 0; i < kills(); i++) {
    Process target({workload(i % 2 == 0 ? "static_steady" : "steady"), "threads=4", "ms=1000"},
                   {.environment = {{"MALLOC_CONF", both_decay}}});
    Process tracer({jemtrace_path(), "-o", "/dev/null"});
    std::this_thread::sleep_for(random_up_to(900));
    tracer.signal(SIGKILL);
    tracer.wait();
    const Outcome outcome = target.wait();
    EXPECT_EQ(outcome.status, 0) << outcome.err;
    EXPECT_EQ(outcome.err, "");
    EXPECT_GT(parse_block(outcome.out).number("dirty_npurge"), 0u);
  }
}

// kill -9 of a jemtrace that launched its target: it runs on to its end, whole families of it too, and none
// stays stopped.
LIVE_TEST(Killed, jemtrace_leaves_the_command_running) {
  for (int i = 0; i < kills(); i++) {
    Process tracer({jemtrace_path(), "-f", "json", "-o", "/dev/null", "--", workload("static_fork")},
                   {.environment = {{"MALLOC_CONF", both_decay}}});
    const milliseconds alive = random_up_to(900);
    SCOPED_TRACE("killed after " + std::to_string(alive.count()) + " ms");
    std::this_thread::sleep_for(alive);
    tracer.signal(SIGKILL);
    tracer.wait();
    wait_until("the command and its children to end", [&] { return session_members(tracer.pid()).empty(); });

    const std::string out = tracer.out();
    if (!out.empty()) {  // else it was killed before the command ran
      EXPECT_EQ(parse_blocks(out).size(), 3u) << out;
    }
    EXPECT_EQ(tracer.err().find("workload:"), std::string::npos) << tracer.err();
  }
}

// The same keys, status and stderr with and without.
LIVE_TEST(Watched, a_program_prints_what_it_prints_alone) {
  for (const char* name : {"static_batch", "static_multi_arena", "static_own_madvise", "steady"}) {
    const Process::Options options = {.environment = {{"MALLOC_CONF", both_decay}}};
    const Outcome alone = Process({workload(name)}, options).wait();
    const Outcome watched = run_traced({workload(name)}, options).outcome;
    EXPECT_EQ(watched.status, alone.status);
    EXPECT_EQ(parse_blocks(watched.out).size(), parse_blocks(alone.out).size());
    EXPECT_EQ(std::count(watched.out.begin(), watched.out.end(), '\n'),
              std::count(alone.out.begin(), alone.out.end(), '\n'));
  }
}

// A hundred thousand purges a second, nothing lost. Oracle: the workload's own count.
LIVE_TEST(Storm, loses_nothing) {
  const Trace run = run_traced({workload("static_purge_storm"), "rate=100000", "threads=2", "ms=2000"});
  const Block block = parse_block(run.outcome.out);
  const Json summary = run.output().summary_of(block.pid());
  EXPECT_GE(block.number("dirty_nmadvise"), block.number("calls"));
  EXPECT_EQ(counters_of(summary), block.counters());
  expect_no_losses(summary);
}

}  // namespace
}  // namespace jemtrace::live
