#pragma once

#include <gtest/gtest.h>
#include <sys/types.h>

#include <chrono>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <ostream>
#include <string>
#include <string_view>
#include <vector>

/// Runs jemtrace and workloads, and reads what both print. Contract: the NDJSON of `jemtrace -f json` and the
/// `key=value` lines of tests/workloads. A broken contract (a line that does not parse, a missing summary)
/// throws, which fails the test with the text that broke it.
namespace jemtrace::live {

using Json = nlohmann::ordered_json;  // `type` must come first: the order of keys matters
using Strings = std::vector<std::string>;
using std::chrono::milliseconds;
using namespace std::chrono_literals;

/// For what comes at once, or after what a test asks for: far beyond what a slow or busy machine takes. It is
/// only waited out where a test fails.
constexpr milliseconds patience = 60s;

/// Skips when the host cannot trace (`jemtrace check` exits with 77); fails instead when
/// JEMTRACE_LIVE=require or CI=true.
class LiveTest : public ::testing::Test {
 protected:
  void SetUp() override;
};

/// Nothing may be skipped: JEMTRACE_LIVE=require or CI=true.
bool everything_is_required();

#define LIVE_TEST(suite, name)                         \
  GTEST_TEST_(suite, name, ::jemtrace::live::LiveTest, \
              ::testing::internal::GetTypeId<::jemtrace::live::LiveTest>())

/// $JEMTRACE, else the one of this build.
std::string jemtrace_path();

/// The path of a workload of this build; of the ones made from libjemalloc.a: "static_NAME".
std::string workload(std::string_view name);

/// On which a server can listen on loopback: below those that the kernel gives to whoever connects somewhere.
std::string free_port();

/// A value from the environment, for tests that repeat.
int number_from_environment(const char* name, int otherwise);

/// How a process ended. `status` as a shell shows it: 128 + the signal that killed it.
struct Outcome {
  int status = 0;
  std::string out, err;
  milliseconds took{};
};

/// A file path that is removed with the object.
class TemporaryFile {
 public:
  TemporaryFile();
  ~TemporaryFile();
  TemporaryFile(const TemporaryFile&) = delete;
  TemporaryFile& operator=(const TemporaryFile&) = delete;

  const std::string& path() const { return path_; }
  std::string read() const;

 private:
  std::string path_;
};

/// A running process in a session of its own, killed with it when the object goes. Its stdout and stderr go
/// to files: they can be read at any time and never block it.
class Process {
 public:
  struct Options {
    std::map<std::string, std::string> environment;  // added to ours
    bool with_stdin = false;                         // a pipe to send() to; else /dev/null
    int stdout_fd = -1;                              // instead of a file
  };

  Process(const Strings& command, const Options& options);
  explicit Process(const Strings& command) : Process(command, Options()) {}
  ~Process();
  Process(const Process&) = delete;
  Process& operator=(const Process&) = delete;

  pid_t pid() const { return pid_; }
  std::string out() const { return out_.read(); }
  std::string err() const { return err_.read(); }
  void send(std::string_view line) const;
  void close_stdin();
  void signal(int number) const;

  /// Throws when the process ends or `limit` passes before the text is there.
  void wait_for_out(std::string_view text, milliseconds limit = patience);
  void wait_for_err(std::string_view text, milliseconds limit = patience);
  /// Waits until its main thread is blocked in this system call.
  void wait_for_syscall(long number, milliseconds limit = patience) const;

  /// Waits for its end; throws when `limit` passes first.
  Outcome wait(milliseconds limit = patience);
  bool ended();

 private:
  void wait_for_text(std::string_view text, const char* where, const TemporaryFile& file, milliseconds limit);
  bool reap(bool block);

  pid_t pid_ = -1;
  int stdin_ = -1;
  TemporaryFile out_, err_;
  std::optional<int> status_;
  std::chrono::steady_clock::time_point start_;
};

/// The pids, without zombies, of a session that Process made: what is left of a process and its children.
std::vector<pid_t> session_members(pid_t session);

/// Asks until `done` or throws, naming `what`, when `limit` passes.
template <typename Condition>
void wait_until(std::string_view what, Condition done, milliseconds limit = patience);
void wait_step(std::string_view what, std::chrono::steady_clock::time_point end);

/// jemalloc's counters, from a workload or from jemtrace.
struct Counters {
  uint64_t dirty_npurge = 0, dirty_nmadvise = 0, dirty_purged = 0;
  uint64_t muzzy_npurge = 0, muzzy_nmadvise = 0, muzzy_purged = 0;

  bool operator==(const Counters&) const = default;
  Counters operator-(const Counters& before) const;
  uint64_t calls() const { return dirty_nmadvise + muzzy_nmadvise; }
  uint64_t bytes() const { return (dirty_purged + muzzy_purged) * 4096; }
};
std::ostream& operator<<(std::ostream& out, const Counters& counters);

/// One process's `key=value` lines; begins with `pid=`.
class Block {
 public:
  explicit Block(std::map<std::string, std::string> values) : values_(std::move(values)) {}

  uint64_t number(const std::string& key) const;
  bool has(const std::string& key) const { return values_.contains(key); }
  const std::string& text(const std::string& key) const { return values_.at(key); }
  pid_t pid() const { return static_cast<pid_t>(number("pid")); }
  /// With prefix "base_", "least_": the counters of another moment.
  Counters counters(const std::string& prefix = "") const;

 private:
  std::map<std::string, std::string> values_;
};
std::vector<Block> parse_blocks(std::string_view text);
/// The only block.
Block parse_block(std::string_view text);

/// NDJSON, checked: every line is an object with `type` as its first key; the first one is the `header`.
class Output {
 public:
  explicit Output(std::string_view text);

  const std::vector<Json>& lines() const { return lines_; }
  std::vector<Json> of_type(std::string_view type) const;
  Json header() const { return of_type("header").at(0); }
  Json target(pid_t pid) const { return only("target", pid); }
  Json summary_of(pid_t pid) const { return only("summary", pid); }
  /// In the order printed: one for each program that the pid ran.
  std::vector<Json> summaries_of(pid_t pid) const;

 private:
  Json only(std::string_view type, pid_t pid) const;

  std::vector<Json> lines_;
};

/// `counters` of a summary. Throws when one is null: unknown is not 0.
Counters counters_of(const Json& summary);
/// Every kind of loss is 0.
void expect_no_losses(const Json& summary);
/// Sum over `callsites` of purge-like calls from within a jemalloc: purposes sweep, oversize and unproven.
/// Among the unproven ones are the probes of jemalloc's start: four call sites with one call of one page
/// each, left out here.
struct Calls {
  uint64_t calls = 0, bytes = 0;
  bool operator==(const Calls&) const = default;
};
std::ostream& operator<<(std::ostream& out, const Calls& calls);
Calls purge_calls_of(const Json& summary);
/// `other`.`purpose`: calls that gave back memory and were no purge.
Calls other_calls_of(const Json& summary, const char* purpose);
/// Can this target's purges be told apart by source? False for the tier `syscall`, where only their sum is
/// known.
bool knows_sources(const Json& target);
/// All six counters when the tier knows them, else the sums of calls and bytes.
void expect_equal_to_jemalloc(const Json& summary, const Json& target, const Counters& truth);

/// jemtrace to its end. Writes to `output` by -o, so that stdout is the command's.
struct Trace {
  Outcome outcome;
  std::string ndjson;

  Output output() const { return Output(ndjson); }
};
/// `jemtrace -f json -o FILE OPTIONS -- COMMAND`.
Trace run_traced(const Strings& command, const Process::Options& options = {},
                 const Strings& jemtrace_options = {}, milliseconds limit = 2 * patience);
/// `jemtrace ARGUMENTS`.
Outcome run_jemtrace(const Strings& arguments, const Process::Options& options = {},
                     milliseconds limit = patience);

/// Until `jemtrace list` finds one in the process, which may not have loaded it yet.
void wait_for_jemalloc(pid_t pid);

/// jemtrace beside running processes: `jemtrace -v -f json -o FILE ARGUMENTS`.
class Tracer {
 public:
  explicit Tracer(const Strings& arguments);
  /// By `launcher`, which runs it as another user: the one that may write its output.
  Tracer(const Strings& arguments, const Strings& launcher, uid_t user);

  /// Returns once all links are attached and the process is a target: what it does from now on counts.
  void wait_for(pid_t pid);
  /// Until so many of the lines that it has printed are as `wanted`.
  void wait_for_lines(const std::string& what, const std::function<bool(const Json&)>& wanted,
                      size_t count = 1);
  /// SIGINT, then its end and all it printed.
  Trace stop();
  Trace wait(milliseconds limit = patience);
  Process& process() { return process_; }

 private:
  TemporaryFile file_;
  Process process_;
};

/// The workload `controlled`: does only what it is told, so that counters are read in quiescent moments.
class Controlled {
 public:
  explicit Controlled(std::string_view name, const std::string& malloc_conf, const Strings& arguments = {});

  pid_t pid() const { return process_.pid(); }
  void command(const std::string& line);
  Counters counters();
  Outcome quit();

 private:
  Process process_;
  size_t answered_ = 0;
};

template <typename Condition>
void wait_until(std::string_view what, Condition done, milliseconds limit) {
  const auto end = std::chrono::steady_clock::now() + limit;
  while (!done()) {
    wait_step(what, end);
  }
}

}  // namespace jemtrace::live
