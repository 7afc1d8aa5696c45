// `jemtrace diagnose`: a program for each diagnosis, made so that the right finding comes first and no false
// one beside it, and programs in which all is well. By default one of each kind that is quick;
//   JEMTRACE_DIAGNOSES=all             every program;     JEMTRACE_DIAGNOSES=STUCK_DIRTY   those of one id
//   JEMTRACE_REPEAT=20                 each so many times
// A finding of severity "info" beside the right one is true of these programs, and no false finding.
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>
#include <memory>
#include <sstream>
#include <thread>

#include "live.hpp"

namespace jemtrace::live {
namespace {

constexpr uint64_t mib = uint64_t{1} << 20;

/// A memory cgroup of version 1 with a limit.
class LimitedCgroup {
 public:
  explicit LimitedCgroup(uint64_t limit)
      : path_("/sys/fs/cgroup/memory/jemtrace_diagnose_" + std::to_string(::getpid())) {
    made_ = ::mkdir(path_.c_str(), 0755) == 0;
    std::ofstream(path_ + "/memory.limit_in_bytes") << limit << "\n";
  }
  ~LimitedCgroup() {
    for (int i = 0; i < 50 && ::rmdir(path_.c_str()) != 0; ++i) {
      std::this_thread::sleep_for(20ms);  // its processes are on their way out
    }
  }
  LimitedCgroup(const LimitedCgroup&) = delete;
  LimitedCgroup& operator=(const LimitedCgroup&) = delete;
  bool made() const { return made_; }
  Strings entering(const Strings& command) const {
    Strings all = {"/bin/sh", "-c", "echo $$ > " + path_ + "/cgroup.procs && exec \"$@\"", "sh"};
    all.insert(all.end(), command.begin(), command.end());
    return all;
  }

 private:
  std::string path_;
  bool made_ = false;
};

/// Host-wide; nobody else frees lazily while the live tests run.
uint64_t vmstat(const std::string& name) {
  std::ifstream file("/proc/vmstat");
  std::string key;
  for (uint64_t value = 0; file >> key >> value;) {
    if (key == name) {
      return value;
    }
  }
  throw std::runtime_error("/proc/vmstat has no " + name);
}

/// What happens within the window, beside the program.
enum class Then { nothing, collapse, grow, press };

struct Case {
  std::string id;
  std::string variable;  // "MALLOC_CONF=..."; may be empty
  std::string command;
  bool quick = false;      // in the default run
  bool says_ready = true;  // `done=` on stdout once it is as it should be
  uint64_t limit_mib = 0;  // in a cgroup of so much
  Then then = Then::nothing;
  Strings options = {};
};
std::ostream& operator<<(std::ostream& out, const Case& one) {
  return out << one.id << ": " << one.variable << ' ' << one.command;
}

const std::vector<Case>& cases() {
  constexpr const char* keep_all = "MALLOC_CONF=dirty_decay_ms:-1,muzzy_decay_ms:-1";
  static const std::vector<Case> all = {
      {"STUCK_DIRTY", "MALLOC_CONF=dirty_decay_ms:200", "held state=dirty mib=256", true},
      {"STUCK_DIRTY", "MALLOC_CONF=dirty_decay_ms:-1", "held state=dirty mib=256"},
      {"LAZYFREE_INFLATED", keep_all, "held state=lazyfree mib=400"},
      {"LAZYFREE_STARVED", keep_all, "held state=lazyfree mib=300", false, true, 640, Then::press},
      {"LAZYFREE_CANCELLED_BY_COLLAPSE", keep_all, "held state=lazyfree mib=400", true, true, 0,
       Then::collapse},
      {"KHUGEPAGED_REFILL", "MALLOC_CONF=dirty_decay_ms:-1,muzzy_decay_ms:0", "held state=refilled mib=400"},
      {"GHOST_THP", "MALLOC_CONF=thp:always,dirty_decay_ms:-1,muzzy_decay_ms:0",
       "held state=retained mib=400 keep=2", false, true, 1500},
      {"EAGER_OVERSIZE", "", "oversize rounds=1000", true, false},
      {"APP_THREADS_PAY", "MALLOC_CONF=dirty_decay_ms:0,muzzy_decay_ms:0,oversize_threshold:0",
       "purging mode=drain kib=65536 count=24 pause_us=80000 start_ms=1000"},
      {"LOCK_BOUND_PURGE", "MALLOC_CONF=retain:false,dirty_decay_ms:0,muzzy_decay_ms:0,oversize_threshold:0",
       "purging kib=256 pause_us=200 readers=2 hold_mib=600"},
      {"WORK_BOUND_PURGE",
       "MALLOC_CONF=background_thread:true,dirty_decay_ms:100,muzzy_decay_ms:0,oversize_threshold:0",
       "purging mode=drain kib=131072 count=24 pause_us=60000 start_ms=700"},
      // Needs two CPUs to itself.
      {"SHOOTDOWN_BOUND", "MALLOC_CONF=dirty_decay_ms:0,muzzy_decay_ms:0,tcache:false",
       "purging mode=drain kib=16 count=80000 keep=2 pause_us=0 start_ms=1500 spinners=1"},
      {"PURGE_THRASH", "MALLOC_CONF=dirty_decay_ms:0,muzzy_decay_ms:0,oversize_threshold:0",
       "purging kib=2048 pause_us=1000", true},
      {"FRAGMENTED",
       "MALLOC_CONF=dirty_decay_ms:1000,background_thread:true",
       "held state=fragmented mib=400 keep=8",
       false,
       true,
       0,
       Then::nothing,
       {"--mallctl=call"}},
      {"ARENA_SPRAWL", "MALLOC_CONF=narenas:32,dirty_decay_ms:200", "held state=sprawl mib=256"},
      {"CONF_NOT_APPLIED", "_RJEM_MALLOC_CONF=background_thread:true", "held state=dirty mib=16", true},
      {"CONF_NOT_APPLIED", "MALLOC_CONF=dirty_decay:500", "held state=dirty mib=16"},
      {"VMA_EXPLOSION", "MALLOC_CONF=retain:false,dirty_decay_ms:0,muzzy_decay_ms:0,tcache:false",
       "held state=mappings"},
      {"NOT_JEMALLOC", "", "held state=other mib=256", true},
      {"VIRT_ONLY", "MALLOC_CONF=dirty_decay_ms:-1,muzzy_decay_ms:0", "held state=virtual mib=2048"},
      {"MLOCKED", "MALLOC_CONF=dirty_decay_ms:-1", "held state=locked mib=256"},
      {"FORK_SHARED", keep_all, "held state=forked mib=400"},
      {"OOM_CONTEXT", "MALLOC_CONF=dirty_decay_ms:-1", "held state=dirty mib=128", true, true, 300,
       Then::grow},
      {"HEALTHY", "", "held state=dirty mib=16"},
      {"HEALTHY", "", "held state=untouched mib=64"},
      {"HEALTHY", "", "controlled", false, false},
      {"HEALTHY", "", "steady ms=20000", true, false},
      {"HEALTHY", "", "static_steady ms=20000", false, false},
      {"HEALTHY", "", "batch rounds=1000", false, false},
      {"HEALTHY", "MALLOC_CONF=background_thread:true", "batch rounds=1000", false, false},
      {"HEALTHY", "MALLOC_CONF=background_thread:true,dirty_decay_ms:1000", "multi_arena rounds=1000", false,
       false},
      {"HEALTHY", "", "busy rounds=4000", false, false},
      {"HEALTHY", "MALLOC_CONF=background_thread:true,dirty_decay_ms:500,muzzy_decay_ms:500",
       "purging kib=512 pause_us=3000"},
      {"HEALTHY", "", "redis", true, false},
  };
  return all;
}

Strings words_of(const std::string& text) {
  std::istringstream in(text);
  Strings words;
  for (std::string word; in >> word;) {
    words.push_back(word);
  }
  return words;
}

const std::string& redis_port() {
  static const std::string port = free_port();
  return port;
}

Strings command_of(const Case& one) {
  if (one.command == "redis") {
    return {"redis-server", "--port", redis_port(),   "--bind", "127.0.0.1",
            "--save",       "",       "--appendonly", "no"};
  }
  Strings words = words_of(one.command);
  words.front() = workload(words.front());
  return words;
}

/// Clean page cache, charged to the cgroup and older than all else there.
void fill_page_cache(const LimitedCgroup& cgroup) {
  static const TemporaryFile file;
  const std::string size = "count=200";
  if (Process({"dd", "if=/dev/zero", "of=" + file.path(), "bs=1M", size, "conv=fsync"}).wait().status != 0) {
    throw std::runtime_error("dd failed");
  }
  const int fd = ::open(file.path().c_str(), O_RDONLY | O_CLOEXEC);
  ::posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
  ::close(fd);
  Process(cgroup.entering({"dd", "if=" + file.path(), "of=/dev/null", "bs=1M"})).wait();
}

std::vector<Json> findings_of(const Outcome& outcome) {
  if (outcome.status != 0) {
    throw std::runtime_error("jemtrace diagnose: " + outcome.err);
  }
  return Output(outcome.out).of_type("finding");
}

std::unique_ptr<Process> start(const Case& one, const LimitedCgroup* cgroup) {
  Process::Options options{.with_stdin = true};
  if (const size_t equals = one.variable.find('='); equals != std::string::npos) {
    options.environment[one.variable.substr(0, equals)] = one.variable.substr(equals + 1);
  }
  const Strings command = command_of(one);
  auto program = std::make_unique<Process>(cgroup != nullptr ? cgroup->entering(command) : command, options);
  if (one.says_ready) {
    program->wait_for_out("done=");
  } else if (one.command == "redis") {
    program->wait_for_out("Ready to accept connections");
  } else {
    wait_for_jemalloc(program->pid());
  }
  return program;
}

/// What puts pressure on a cgroup. Returns once all of it is resident.
std::unique_ptr<Process> hold_other_memory(const LimitedCgroup& cgroup, const std::string& mib) {
  auto other = std::make_unique<Process>(cgroup.entering({workload("held"), "state=other", mib}),
                                         Process::Options{.with_stdin = true});
  other->wait_for_out("done=");
  return other;
}

/// `jemtrace diagnose` of a window that ends when it is told to, or with the process.
class OpenWindow {
 public:
  /// Returns once it has looked at the process: then it waits in poll(2).
  explicit OpenWindow(pid_t pid)
      : process_({jemtrace_path(), "diagnose", "-p", std::to_string(pid), "-d", "600s", "-f", "json"}) {
    process_.wait_for_out("\"type\":\"target\"");
    process_.wait_for_syscall(SYS_poll);
  }
  /// Not before it has lasted 3 s: some rules judge what stays as it is.
  Outcome end() {
    std::this_thread::sleep_until(least_end_);
    process_.signal(SIGINT);
    return process_.wait();
  }
  Outcome wait() { return process_.wait(); }

 private:
  Process process_;
  std::chrono::steady_clock::time_point least_end_ = std::chrono::steady_clock::now() + 3s;
};

std::vector<Json> diagnose(const Case& one) {
  std::unique_ptr<LimitedCgroup> cgroup;
  if (one.limit_mib > 0) {
    cgroup = std::make_unique<LimitedCgroup>(one.limit_mib * mib);
  }
  if (one.then == Then::press) {
    fill_page_cache(*cgroup);
  }
  const auto program = start(one, cgroup.get());
  std::unique_ptr<Process> beside;
  if (one.command == "redis") {
    beside = std::make_unique<Process>(Strings{"redis-benchmark", "-p", redis_port(), "-q", "-t", "set,get",
                                               "-n", "2000000", "-r", "50000", "-d", "500"});
  }
  if (one.then == Then::nothing) {
    Strings arguments = {"diagnose", "-p", std::to_string(program->pid()), "-d", "3s", "-f", "json"};
    arguments.insert(arguments.end(), one.options.begin(), one.options.end());
    return findings_of(run_jemtrace(arguments));
  }
  OpenWindow window(program->pid());
  if (one.then == Then::press) {
    beside = hold_other_memory(*cgroup, "mib=200");
  } else if (one.then == Then::collapse) {
    program->send("collapse");
    program->wait_for_syscall(SYS_read);  // the next line: it has collapsed all
  } else {
    program->send("grow");  // and is killed
    return findings_of(window.wait());
  }
  return findings_of(window.end());
}

bool cgroups_are_here() {
  return LimitedCgroup(64 * mib).made();
}

void expect_first(const Case& one) {
  SCOPED_TRACE(one);
  const auto findings = diagnose(one);
  ASSERT_FALSE(findings.empty());
  EXPECT_EQ(findings.front().at("id"), one.id) << findings.front().dump(1);
  for (size_t i = 1; i < findings.size(); ++i) {
    EXPECT_EQ(findings[i].at("severity"), "info") << findings[i].dump(1);
  }
}

/// Which of them JEMTRACE_DIAGNOSES asks for.
std::vector<size_t> chosen() {
  const char* wanted = std::getenv("JEMTRACE_DIAGNOSES");
  std::vector<size_t> result;
  for (size_t i = 0; i < cases().size(); ++i) {
    const Case& one = cases()[i];
    if (wanted == nullptr ? one.quick : wanted == std::string("all") || wanted == one.id) {
      result.push_back(i);
    }
  }
  return result;
}

class Diagnoses : public LiveTest, public ::testing::WithParamInterface<size_t> {};

TEST_P(Diagnoses, the_right_one_comes_first_and_no_false_one_beside_it) {
  const Case& one = cases()[GetParam()];
  if (one.limit_mib > 0 && !cgroups_are_here()) {
    GTEST_SKIP() << "no memory cgroup of version 1 can be made here";
  }
  for (int i = 0; i < number_from_environment("JEMTRACE_REPEAT", 1); ++i) {
    expect_first(one);
  }
}

INSTANTIATE_TEST_SUITE_P(Programs, Diagnoses, ::testing::ValuesIn(chosen()), [](const auto& info) {
  return cases()[info.param].id + "_" + std::to_string(info.param);
});

const Json& evidence(const Json& finding, const std::string& name) {
  for (const Json& one : finding.at("evidence")) {
    if (one.at("name") == name) {
      return one.at("value");
    }
  }
  throw std::runtime_error("no evidence " + name + " in " + finding.dump(1));
}

uint64_t smaps_lazyfree(pid_t pid) {
  std::ifstream file("/proc/" + std::to_string(pid) + "/smaps_rollup");
  for (std::string line; std::getline(file, line);) {
    if (line.rfind("LazyFree:", 0) == 0) {
      return std::strtoull(line.c_str() + 9, nullptr, 10) * 1024;
    }
  }
  throw std::runtime_error("no LazyFree");
}

const Case lazy_case = {"LAZYFREE_INFLATED", "MALLOC_CONF=dirty_decay_ms:-1,muzzy_decay_ms:-1",
                        "held state=lazyfree mib=500"};

/// For whoever wants the figures: --gtest_output=xml.
void record(const std::string& name, double value) {
  ::testing::Test::RecordProperty(name, std::to_string(value));
}

// Held without pressure, then taken by the kernel, then flushed. Oracles: the kernel's smaps for what is held
// and what is resident, its pglazyfreed for what it took, and the program's own look at what it still uses.
LIVE_TEST(DiagnoseLazyFree, bytes_held_taken_and_flushed_are_the_kernels_and_nothing_else_is_flushed) {
  const LimitedCgroup cgroup(720 * mib);
  if (!cgroup.made()) {
    GTEST_SKIP() << "no memory cgroup of version 1 can be made here";
  }
  const auto program = start(lazy_case, &cgroup);
  const std::string pid = std::to_string(program->pid());

  const auto calm = findings_of(run_jemtrace({"diagnose", "-p", pid, "-d", "1s", "-f", "json"}));
  ASSERT_EQ(calm.front().at("id"), "LAZYFREE_INFLATED");
  const auto held = static_cast<double>(smaps_lazyfree(program->pid()));
  record("held_bytes", held);
  record("reported_bytes", evidence(calm.front(), "lazyfree").get<double>());
  EXPECT_GE(held, 256.0 * mib);
  EXPECT_NEAR(evidence(calm.front(), "lazyfree").get<double>(), held, 0.01 * held);

  const uint64_t before = vmstat("pglazyfreed");
  OpenWindow window(program->pid());
  const auto other = hold_other_memory(cgroup, "mib=240");
  const Outcome outcome = window.end();
  const auto taken = static_cast<double>((vmstat("pglazyfreed") - before) * 4096);
  const auto reported = Output(outcome.out).of_type("diagnosis").at(0).at("lazily_taken_bytes").get<double>();
  record("pglazyfreed_bytes", taken);
  record("reported_taken_bytes", reported);
  EXPECT_GE(taken, 32.0 * mib);
  EXPECT_NEAR(reported, taken, 0.05 * taken) << outcome.out;
  other->close_stdin();
  other->wait();

  const auto left = static_cast<double>(smaps_lazyfree(program->pid()));
  const Outcome flushing = run_jemtrace({"diagnose", "--flush-lazyfree", "-f", "json", "-p", pid});
  ASSERT_EQ(flushing.status, 0) << flushing.err;
  const Json flush = Json::parse(flushing.out);
  const auto after = static_cast<double>(smaps_lazyfree(program->pid()));
  record("flushed_percent", 100 * (left - after) / left);
  EXPECT_GE(left, 256.0 * mib);
  EXPECT_LE(after, 0.05 * left);
  EXPECT_NEAR(flush.at("lazyfree_before_bytes").get<double>(), left, 0.01 * left);
  const double freed = flush.at("rss_before_bytes").get<double>() - flush.at("rss_after_bytes").get<double>();
  record("rss_fell_bytes", freed);
  record("lazyfree_fell_bytes", left - after);
  EXPECT_NEAR(freed, left - after, 0.01 * left);
  program->close_stdin();
  program->wait();
  EXPECT_NE(program->out().find("intact=1"), std::string::npos) << program->out();
}

LIVE_TEST(Diagnose, is_text_for_people_with_the_bar_and_the_reasons) {
  const auto program = start(cases().front(), nullptr);
  const Outcome outcome = run_jemtrace({"diagnose", "-p", std::to_string(program->pid()), "-d", "2s"});
  EXPECT_EQ(outcome.status, 0) << outcome.err;
  for (const char* text :
       {"STUCK_DIRTY", "Why is RSS high?", "Why is purging slow?", "background_thread:true"}) {
    EXPECT_NE(outcome.out.find(text), std::string::npos) << text << " in\n" << outcome.out;
  }
  std::istringstream lines(outcome.out);
  for (std::string line; std::getline(lines, line);) {
    EXPECT_LE(line.size(), 80u) << line;
  }
}

LIVE_TEST(Diagnose, ends_early_with_what_it_knows) {
  const auto program = start(cases().front(), nullptr);
  const auto findings = findings_of(OpenWindow(program->pid()).end());
  ASSERT_FALSE(findings.empty());
  EXPECT_EQ(findings.front().at("id"), "STUCK_DIRTY");
}

LIVE_TEST(Diagnose, a_process_without_jemalloc_is_no_target) {
  Process sleeping({"sleep", "60"});
  const std::string pid = std::to_string(sleeping.pid());
  EXPECT_EQ(run_jemtrace({"diagnose", "-p", pid, "-d", "1s"}).status, 3);
  EXPECT_EQ(run_jemtrace({"diagnose", "--flush-lazyfree", "-p", pid}).status, 3);
  EXPECT_EQ(run_jemtrace({"diagnose", "--flush-lazyfree"}).status, 2);
}

}  // namespace
}  // namespace jemtrace::live
