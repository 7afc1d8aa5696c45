// What targets may do to a reader of their memory: be of another kind, in another place, enormous, traced, in
// motion, or gone. It says what it could not read, and goes on.
#include <signal.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <thread>

#include "collect/inspect.hpp"
#include "held.hpp"

namespace jemtrace::live {
namespace {

/// A program for 32 bits with the words of a jemalloc in it. Without a C library: the compiler alone makes
/// it.
class Program32 {
 public:
  Program32() {
    std::ofstream(source_.path()) << R"(
      extern "C" {
      extern const char words[], version[];
      const char words[] __attribute__((used)) = "<jem" "alloc>: \0dirty_decay_ms\0muzzy_decay_ms";
      const char version[] __attribute__((used)) = "5.3.0-0-g54eaed1d8b56b1aa528be3bdd1877e59c56fa90c";
      void _start() { for (;;) { int pause = 29; __asm__ volatile("int $0x80" : "+a"(pause) : : "memory"); } }
      })";
    const Process::Options quiet;
    made_ = Process({LINKER, "-m32", "-nostdlib", "-ffreestanding", "-static", "-fno-pie", "-no-pie", "-x",
                     "c++", source_.path(), "-o", path()},
                    quiet)
                .wait(30s)
                .status == 0;
  }
  ~Program32() { std::filesystem::remove(path()); }
  bool made() const { return made_; }
  std::string path() const { return source_.path() + ".32"; }

 private:
  TemporaryFile source_;
  bool made_ = false;
};

LIVE_TEST(BadInput, a_32_bit_process_is_named_and_the_others_are_read) {
  const Program32 program;
  if (!program.made()) {
    GTEST_SKIP() << "this compiler makes no programs for 32 bits";
  }
  Process process({program.path()});
  const std::string exe = "/proc/" + std::to_string(process.pid()) + "/exe";
  std::error_code none;
  wait_until("its start",
             [&] { return process.ended() || std::filesystem::read_symlink(exe, none) == program.path(); });
  if (process.ended()) {
    GTEST_SKIP() << "this kernel runs no programs for 32 bits";
  }
  const std::string pid = std::to_string(process.pid());
  for (const Strings& command :
       {Strings{"stats", "-p", pid}, Strings{"list", "-p", pid}, Strings{"-p", pid, "-d", "1s"}}) {
    const Outcome alone = run_jemtrace(command);
    EXPECT_EQ(alone.status, 3) << alone.err;
    EXPECT_NE(alone.err.find("is a 32-bit ELF file, whose processes are neither traced nor read"),
              std::string::npos)
        << alone.err;
  }
  const Outcome call = run_jemtrace({"stats", "-p", pid, "--mallctl=call"});
  EXPECT_EQ(call.status, 1);
  EXPECT_NE(call.err.find("is a 32-bit ELF file"), std::string::npos) << call.err;

  const Held held("held", "dirty", "dirty_decay_ms:-1");
  const Outcome both = run_jemtrace({"stats", "-f", "json", "-p", pid + "," + std::to_string(held.pid())});
  EXPECT_EQ(both.status, 0) << both.err;
  EXPECT_NE(both.err.find("is a 32-bit ELF file"), std::string::npos) << both.err;
  expect_equals_mallctl(Json::parse(both.out), held);
}

// Its file is on a file system that only it sees, and it calls itself pid 1 or 2.
LIVE_TEST(BadInput, a_process_in_other_namespaces) {
  char folder[] = "/tmp/jemtrace-namespace-XXXXXX";
  ASSERT_NE(mkdtemp(folder), nullptr);
  {
    const std::string hidden = std::string(folder) + "/program";
    Strings wrapper = {"unshare",
                       "--pid",
                       "--fork",
                       "--kill-child",
                       "--mount",
                       "--mount-proc",
                       "/bin/sh",
                       "-c",
                       "mount -t tmpfs none " + std::string(folder) + " && cp \"$1\" " + hidden +
                           " && shift && exec " + hidden + " \"$@\"",
                       "sh"};
    const Held held("static_held", "lazyfree", "dirty_decay_ms:-1,muzzy_decay_ms:-1", wrapper);
    ASSERT_FALSE(std::filesystem::exists(hidden));
    ASSERT_LE(held.truth("pid"), 2u) << "it is in our pid namespace";
    const Json stats = held.stats();
    expect_sums_to_rss(stats, held.pid());
    expect_equals_mallctl(stats, held);
    EXPECT_EQ(stats.at("reading").at("options").at("muzzy_decay_ms"), "-1");
    const Json called = stats_of(held.pid(), {"--mallctl=call"});
    EXPECT_EQ(called.at("account").at("allocated_bytes"), held.truth("allocated"));

    Tracer tracer({"-p", std::to_string(held.pid())});
    tracer.wait_for(held.pid());
    const Output output = tracer.stop().output();
    EXPECT_EQ(output.target(held.pid()).at("images").at(0).at("tier"), "symbols");
  }
  std::filesystem::remove(folder);
}

/// Traces a process, as a debugger does, while it lives.
class Debugger {
 public:
  explicit Debugger(pid_t pid) : pid_(pid) {
    attached_ = ptrace(PTRACE_SEIZE, pid, 0, 0) == 0 && ptrace(PTRACE_INTERRUPT, pid, 0, 0) == 0 &&
                waitpid(pid, nullptr, __WALL) == pid;
  }
  ~Debugger() {
    if (attached_) {
      ptrace(PTRACE_DETACH, pid_, 0, 0);
    }
  }
  Debugger(const Debugger&) = delete;
  Debugger& operator=(const Debugger&) = delete;
  bool attached() const { return attached_; }

 private:
  pid_t pid_;
  bool attached_ = false;
};

LIVE_TEST(BadInput, a_process_that_stands_in_a_debugger) {
  const Held held("held", "dirty", "dirty_decay_ms:-1");
  const Debugger debugger(held.pid());
  ASSERT_TRUE(debugger.attached());
  const Json stats = held.stats();
  expect_sums_to_rss(stats, held.pid());
  expect_equals_mallctl(stats, held);
  const Outcome call = run_jemtrace({"stats", "-p", std::to_string(held.pid()), "--mallctl=call"});
  EXPECT_EQ(call.status, 1);
  EXPECT_NE(call.err.find("it is traced by pid " + std::to_string(getpid())), std::string::npos) << call.err;
}

LIVE_TEST(BadInput, sixty_thousand_mappings) {
  // Nothing is retained: each piece that is freed leaves a hole.
  const Held held("static_held", "mappings", "retain:false,dirty_decay_ms:0,muzzy_decay_ms:0", {},
                  {"count=121000"});
  std::ifstream maps("/proc/" + std::to_string(held.pid()) + "/maps");
  const auto count = std::count(std::istreambuf_iterator<char>(maps), {}, '\n');
  ASSERT_GE(count, 60'000);
  const Json stats = held.stats();
  expect_sums_to_rss(stats, held.pid());
  expect_equals_mallctl(stats, held);

  Tracer tracer({"-i", "100ms", "-p", std::to_string(held.pid())});
  tracer.wait_for(held.pid());
  tracer.wait_for_lines("a reading", [](const Json& line) {
    return line.value("type", "") == "interval" && !line["rss_bytes"].is_null();
  });
  const Json summary = tracer.stop().output().summary_of(held.pid());
  EXPECT_GT(summary.at("rss").at("end_bytes"), 8 * mib) << summary.at("rss");
}

LIVE_TEST(BadInput, as_many_arenas_as_there_can_be) {
  const Held held("static_held", "arenas", "oversize_threshold:0,dirty_decay_ms:-1", {}, {"count=4094"});
  // A reading gives up after 0.5 s, which is not enough for all of them where others use the CPUs.
  Json stats;
  wait_until("a reading that came to its end", [&] {
    stats = stats_of(held.pid(), {"--arenas"});
    return stats.at("reading").at("discarded") == 0u;
  });
  expect_sums_to_rss(stats, held.pid());
  expect_equals_mallctl(stats, held);
  EXPECT_EQ(stats.at("reading").at("arenas").size(), 4095u);
  // One page of each arena; what jemalloc reads of its own and never wrote is not resident.
  EXPECT_GE(stats.at("account").at("resident").at("active_bytes"), 4094u * 4096) << stats.at("account");
  EXPECT_EQ(run_jemtrace({"stats", "--arenas", "-p", std::to_string(held.pid())}).status, 0);
}

// Its end may come at any moment of a reading.
LIVE_TEST(BadInput, a_process_that_exits_while_it_is_read) {
  const auto reading = [](const Held& held) {
    return run_jemtrace({"stats", "-f", "json", "-p", std::to_string(held.pid())});
  };
  // From at once to well after the end of a reading, which takes 20 ms here.
  const auto step = reading(Held("static_held", "dirty", "dirty_decay_ms:-1", {}, {"mib=16"})).took / 25.0;
  int read = 0;
  int gone = 0;
  for (int i = 0; i < 40 || (read == 0 && i < 400); ++i) {
    Held held("static_held", "dirty", "dirty_decay_ms:-1", {}, {"mib=16"});
    std::thread killer([&] {
      std::this_thread::sleep_for(step * i);
      held.process().signal(SIGKILL);
    });
    const Outcome outcome = reading(held);
    killer.join();
    if (outcome.status == 0) {
      const Json account = Json::parse(outcome.out).at("account");
      EXPECT_GT(account.at("rss_bytes"), 16 * mib) << account;
      read += 1;
    } else {
      EXPECT_TRUE(outcome.status == 1 || outcome.status == 3) << outcome.status << outcome.err;
      EXPECT_TRUE(outcome.out.empty()) << outcome.out;
      EXPECT_NE(outcome.err.find("jemtrace: "), std::string::npos) << outcome.err;
      gone += 1;
    }
  }
  EXPECT_GT(read, 0);
  EXPECT_GT(gone, 0);
}

LIVE_TEST(BadInput, a_process_whose_array_of_arenas_is_gone) {
  Held held("static_held", "dirty", "dirty_decay_ms:-1");
  const auto placed = collect::inspect_placed(ProcRoot(), held.pid());
  ASSERT_TRUE(placed);
  const collect::PlacedImage& image = placed->images.at(0);
  ASSERT_TRUE(image.named.image.structures && image.named.image.structures->arenas);
  expect_equals_mallctl(held.stats(), held);

  std::ostringstream command;
  command << "unmap " << std::hex << *image.named.image.structures->arenas + image.bias;
  held.process().send(command.str());
  held.process().wait_for_out("done=unmapped");
  const Json stats = held.stats();
  expect_sums_to_rss(stats, held.pid());
  EXPECT_TRUE(stats.at("reading").is_null()) << stats.at("reading");
  const Outcome text = run_jemtrace({"stats", "-p", std::to_string(held.pid())});
  EXPECT_EQ(text.status, 0) << text.err;
  EXPECT_NE(text.out.find("the array of arenas is not where the image says"), std::string::npos) << text.out;
}

// Between two looks it maps gigabytes, and gives them back. The bound says how far that leads astray.
LIVE_TEST(BadInput, a_process_that_never_stands_still) {
  Held held("static_held", "dirty", "dirty_decay_ms:-1");
  held.process().send("churn");
  for (int i = 0; i < 30; ++i) {
    const Json account = held.stats().at("account");
    EXPECT_LE(std::abs(account.at("unexplained_bytes").get<int64_t>()),
              account.at("bound_bytes").get<int64_t>())
        << account;
  }
}

}  // namespace
}  // namespace jemtrace::live
