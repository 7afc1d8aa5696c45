// What the user meets when something is wrong or ends early: exit status, one message that says what failed,
// a hint that says what to do. Contract: docs, "Exit status".
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <thread>

#include "live.hpp"

namespace jemtrace::live {
namespace {

void expect_message(const Outcome& outcome) {
  EXPECT_EQ(outcome.err.rfind("jemtrace: ", 0), 0u) << outcome.err;
  EXPECT_EQ(outcome.out, "");
}

void expect_hint(const Outcome& outcome) {
  EXPECT_NE(outcome.err.find("\nhint: "), std::string::npos) << outcome.err;
}

LIVE_TEST(Usage, of_a_pid_that_does_not_exist_fails_with_a_hint) {
  const Outcome outcome = run_jemtrace({"-p", "4194304"});  // PID_MAX_LIMIT: never given out
  EXPECT_EQ(outcome.status, 1);
  expect_message(outcome);
  expect_hint(outcome);
  EXPECT_NE(outcome.err.find("4194304"), std::string::npos);
}

LIVE_TEST(Usage, of_a_pid_without_jemalloc_has_a_status_of_its_own) {
  const Process sleeper({"sleep", "30"});
  const Outcome outcome = run_jemtrace({"-p", std::to_string(sleeper.pid()), "-d", "1s"});
  EXPECT_EQ(outcome.status, 3);
  expect_message(outcome);
}

LIVE_TEST(Usage, of_an_unknown_option_is_refused) {
  const Outcome outcome = run_jemtrace({"--no-such-option"});
  EXPECT_EQ(outcome.status, 2);
  EXPECT_NE(outcome.err.find("--no-such-option"), std::string::npos);
  EXPECT_EQ(outcome.out, "");
}

LIVE_TEST(Usage, of_bad_values_is_refused) {
  const Strings bad[] = {{"-d", "5"}, {"-d", "5 parsecs"}, {"-p", "x"},   {"-p", "-1"},
                         {"-p", ""},  {"-i", "0s"},        {"-f", "yaml"}};
  for (const Strings& arguments : bad) {
    const Outcome outcome = run_jemtrace(arguments);
    EXPECT_EQ(outcome.status, 2) << arguments[0] << " " << arguments[1] << ": " << outcome.err;
    EXPECT_EQ(outcome.out, "");
  }
}

LIVE_TEST(Usage, help_and_version_go_to_stdout) {
  for (const char* option : {"--help", "--version"}) {
    const Outcome outcome = run_jemtrace({option});
    EXPECT_EQ(outcome.status, 0);
    EXPECT_NE(outcome.out, "");
    EXPECT_EQ(outcome.err, "");
  }
}

LIVE_TEST(Usage, of_an_output_file_that_cannot_be_written_fails) {
  const Outcome outcome = run_jemtrace({"-d", "1s", "-o", "/nonexistent/file"});
  EXPECT_EQ(outcome.status, 1);
  expect_message(outcome);
  EXPECT_NE(outcome.err.find("/nonexistent/file"), std::string::npos);
}

LIVE_TEST(Usage, without_rights_says_what_is_missing) {
  // Somewhere nobody may read; the build folder may not be.
  const std::string copy = "/tmp/jemtrace-live-" + std::to_string(getpid());
  std::filesystem::copy_file(jemtrace_path(), copy, std::filesystem::copy_options::overwrite_existing);
  chmod(copy.c_str(), 0755);
  const Strings as_nobody = {"setpriv",        "--reuid=65534",       "--regid=65534",
                             "--clear-groups", "--bounding-set=-all", "--inh-caps=-all"};
  for (const Strings& arguments : {Strings{"check"}, Strings{"-d", "1s"}}) {
    Strings command = as_nobody;
    command.push_back(copy);
    command.insert(command.end(), arguments.begin(), arguments.end());
    const Outcome outcome = Process(command).wait();
    EXPECT_EQ(outcome.status, 77) << outcome.out << outcome.err;
    EXPECT_NE((outcome.out + outcome.err).find("root"), std::string::npos) << outcome.out << outcome.err;
  }
  std::filesystem::remove(copy);
}

/// jemtrace with a standard error that nobody can write to: `how` is a redirection.
Outcome run_unheard(const std::string& how, Strings arguments) {
  Strings command = {"sh", "-c", "exec \"$0\" \"$@\" " + how, jemtrace_path()};
  command.insert(command.end(), arguments.begin(), arguments.end());
  return Process(command).wait();
}

LIVE_TEST(Usage, with_nobody_to_hear_complaints_goes_on) {
  for (const char* how : {"2>/dev/full", "2>&-"}) {
    EXPECT_EQ(run_unheard(how, {"stats", "-p", "4194304"}).status, 1) << how;
    EXPECT_EQ(run_unheard(how, {"--", "/bin/sh", "-c", "exit 5"}).status, 5) << how;
    EXPECT_EQ(run_unheard(how, {"-d", "nonsense"}).status, 2) << how;
    // What is said there must not get into a file that is opened in its place.
    const TemporaryFile file;
    EXPECT_EQ(
        run_unheard(how, {"-v", "-f", "json", "-o", file.path(), "-d", "100ms", "--", "/bin/true"}).status,
        0);
    EXPECT_EQ(Output(file.read()).of_type("header").size(), 1u) << file.read();
  }
}

LIVE_TEST(Usage, of_results_that_cannot_be_written_fails) {
  const std::string full = "/dev/full";
  for (const Strings& arguments : {Strings{"--json-schema"}, Strings{"check"}}) {
    Strings command = arguments;
    command.insert(command.end(), {"-o", full});
    const Outcome outcome = run_jemtrace(command);
    EXPECT_EQ(outcome.status, 1) << arguments[0];
    EXPECT_NE(outcome.err.find("cannot write /dev/full"), std::string::npos) << outcome.err;
  }
  EXPECT_EQ(run_unheard(">/dev/full", {"--help"}).status, 1);
}

LIVE_TEST(Command, that_does_not_exist_has_the_status_a_shell_gives) {
  const Outcome outcome = run_jemtrace({"--", "/nonexistent"});
  EXPECT_EQ(outcome.status, 127);
  expect_message(outcome);
  EXPECT_NE(outcome.err.find("/nonexistent"), std::string::npos);
}

LIVE_TEST(Command, that_may_not_be_executed_has_the_status_a_shell_gives) {
  const Outcome outcome = run_jemtrace({"--", "/etc/passwd"});
  EXPECT_EQ(outcome.status, 126);
  expect_message(outcome);
}

LIVE_TEST(Command, passes_its_own_status_on) {
  EXPECT_EQ(run_jemtrace({"--", "/bin/sh", "-c", "exit 42"}).status, 42);
  EXPECT_EQ(run_traced({workload("static_batch"), "no_such_key=1"}).outcome.status, 2);
  EXPECT_EQ(run_traced({workload("static_exit_while_purging"), "how=kill"}).outcome.status, 128 + SIGKILL);
}

LIVE_TEST(Command, that_outlives_the_trace_is_named) {
  const Outcome outcome = run_jemtrace({"-d", "200ms", "--", "/bin/sleep", "3"});
  EXPECT_EQ(outcome.status, 0);
  EXPECT_NE(outcome.err.find("/bin/sleep (pid "), std::string::npos) << outcome.err;
  EXPECT_NE(outcome.err.find("goes on, untraced"), std::string::npos) << outcome.err;
}

LIVE_TEST(Command, keeps_its_stdin_and_stdout) {
  Process process({jemtrace_path(), "-f", "json", "-o", "/dev/null", "--", "/bin/sh", "-c",
                   "read line; echo \"<$line>\""},
                  {.environment = {}, .with_stdin = true});
  process.send("hello");
  EXPECT_EQ(process.wait().out, "<hello>\n");
}

LIVE_TEST(Target, may_vanish) {
  Controlled target("static_controlled", "");
  Tracer tracer({"-p", std::to_string(target.pid()), "-d", "600s"});
  tracer.wait_for(target.pid());
  EXPECT_EQ(target.quit().status, 0);
  const Trace run = tracer.wait();  // ends with its target, not after 600 s

  EXPECT_EQ(run.outcome.status, 0) << run.outcome.err;
  EXPECT_EQ(run.output().summaries_of(target.pid()).size(), 1u);
}

LIVE_TEST(Target, may_vanish_while_jemtrace_starts) {
  for (int i = 0; i < 10; i++) {
    Process target({workload("static_batch"), "rounds=1"});
    std::this_thread::sleep_for(milliseconds(3 * i));
    const Outcome outcome = run_jemtrace({"-p", std::to_string(target.pid()), "-d", "5s"});
    EXPECT_TRUE(outcome.status == 0 || outcome.status == 1 || outcome.status == 3)
        << outcome.status << ": " << outcome.err;
    EXPECT_EQ(target.wait().status, 0);
  }
}

LIVE_TEST(Signal, ends_tracing_and_prints_the_summary) {
  for (const int number : {SIGINT, SIGTERM, SIGHUP}) {
    Controlled target("static_controlled", "dirty_decay_ms:20,muzzy_decay_ms:20");
    Tracer tracer({"-p", std::to_string(target.pid())});
    tracer.wait_for(target.pid());
    target.command("work 5");
    tracer.process().signal(number);
    const Trace run = tracer.wait();

    EXPECT_EQ(run.outcome.status, 0) << run.outcome.err;
    EXPECT_EQ(run.output().summaries_of(target.pid()).size(), 1u);
  }
}

LIVE_TEST(Signal, ends_tracing_and_prints_the_summary_as_text) {
  Controlled target("static_controlled", "dirty_decay_ms:20,muzzy_decay_ms:20");
  Process tracer({jemtrace_path(), "-v", "-p", std::to_string(target.pid())});
  tracer.wait_for_err("attach:");
  target.command("work 5");
  tracer.signal(SIGINT);
  const Outcome outcome = tracer.wait();

  EXPECT_EQ(outcome.status, 0) << outcome.err;
  EXPECT_NE(outcome.out.find("traced"), std::string::npos) << outcome.out;
  EXPECT_NE(outcome.out.find(std::to_string(target.pid())), std::string::npos) << outcome.out;
}

LIVE_TEST(Output, into_a_closed_pipe_ends_jemtrace_quietly) {
  Controlled target("static_controlled", "dirty_decay_ms:20,muzzy_decay_ms:20");
  for (const char* format : {"json", "text"}) {
    int ends[2];
    ASSERT_EQ(pipe2(ends, O_CLOEXEC), 0);
    close(ends[0]);
    Process tracer({jemtrace_path(), "-f", format, "-i", "100ms", "-p", std::to_string(target.pid())},
                   {.environment = {}, .with_stdin = false, .stdout_fd = ends[1]});
    close(ends[1]);
    const Outcome outcome = tracer.wait();

    EXPECT_TRUE(outcome.status == 0 || outcome.status == 1 || outcome.status == 128 + SIGPIPE)
        << outcome.status << ": " << outcome.err;
  }
  target.command("work 5");
  EXPECT_EQ(target.quit().status, 0);
}

/// As text, of many: only who has something to tell is told of, and who gave nothing back is counted.
LIVE_TEST(Output, tells_of_purges_that_are_refused) {
  Controlled idle("static_controlled", "dirty_decay_ms:-1");
  wait_for_jemalloc(idle.pid());
  Process tracer({jemtrace_path(), "-v", "-n", "static_*"});
  tracer.wait_for_err("attach:");
  Process locked({workload("static_batch"), "lock=1", "rounds=5"},
                 {.environment = {{"MALLOC_CONF", "dirty_decay_ms:0,muzzy_decay_ms:0"}}});
  EXPECT_EQ(locked.wait().status, 0);
  tracer.signal(SIGINT);
  const Outcome outcome = tracer.wait();

  EXPECT_EQ(outcome.status, 0) << outcome.err;
  EXPECT_NE(outcome.out.find("with EINVAL"), std::string::npos) << outcome.out;
  EXPECT_NE(outcome.out.find("1 process that gave nothing back"), std::string::npos) << outcome.out;
  EXPECT_EQ(idle.quit().status, 0);
}

/// The ring of events never empties: neither the end nor the lives of others may wait for that.
LIVE_TEST(Output, of_more_events_than_are_taken_ends) {
  Process storm({workload("static_purge_storm"), "rate=200000", "threads=1", "ms=20000"});
  wait_for_jemalloc(storm.pid());
  const std::string reader = "import sys,time\nwhile sys.stdin.buffer.read(65536): time.sleep(.005)";
  const TemporaryFile status;
  Process traced({"sh", "-c", "(\"$0\" -f json --events -p $1 -d 1s; echo $? >$2) | python3 -c \"$3\"",
                  jemtrace_path(), std::to_string(storm.pid()), status.path(), reader});
  EXPECT_EQ(traced.wait().status, 0);
  EXPECT_EQ(status.read(), "0\n");
  EXPECT_FALSE(storm.ended());  // it was at it all the time
}

LIVE_TEST(Output, of_json_has_the_promised_types) {
  Controlled target("static_controlled", "dirty_decay_ms:20,muzzy_decay_ms:20");
  Tracer tracer({"-p", std::to_string(target.pid()), "-i", "200ms", "--events"});
  tracer.wait_for(target.pid());
  target.command("work 40");
  tracer.wait_for_lines(
      "two intervals", [](const Json& line) { return line.value("type", "") == "interval"; }, 2);
  const Output output = tracer.stop().output();

  EXPECT_EQ(output.of_type("header").size(), 1u);
  EXPECT_EQ(output.of_type("target").size(), 1u);
  EXPECT_GE(output.of_type("transition").size(), 1u);
  EXPECT_GE(output.of_type("sweep").size(), 1u);
  EXPECT_EQ(output.of_type("summary").size(), 1u);
  for (const char* key : {"schema", "jemtrace", "kernel", "host", "start_unix_ns", "clock", "command"}) {
    EXPECT_TRUE(output.header().contains(key)) << key;
  }
  for (const char* key :
       {"window_ns", "transitions", "sweeps", "counters", "payers", "rss", "losses", "cost", "other"}) {
    EXPECT_TRUE(output.summary_of(target.pid()).contains(key)) << key;
  }
}

LIVE_TEST(Output, schema_is_json) {
  const Outcome outcome = run_jemtrace({"--json-schema"});
  EXPECT_EQ(outcome.status, 0);
  EXPECT_TRUE(Json::accept(outcome.out)) << outcome.out.substr(0, 200);
}

}  // namespace
}  // namespace jemtrace::live
