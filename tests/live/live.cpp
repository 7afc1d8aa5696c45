#include "live.hpp"

#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <stdexcept>
#include <system_error>
#include <thread>

extern char** environ;

namespace jemtrace::live {
namespace {

using Clock = std::chrono::steady_clock;

[[noreturn]] void fail(const std::string& what) {
  throw std::runtime_error(what);
}

[[noreturn]] void fail_errno(const char* what) {
  throw std::system_error(errno, std::generic_category(), what);
}

std::string read_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

std::string environment(const char* name) {
  const char* value = getenv(name);
  return value == nullptr ? "" : value;
}

uint64_t to_number(const std::string& text) {
  uint64_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || end != text.data() + text.size()) {
    fail("not a number: " + text);
  }
  return number;
}

std::vector<char*> pointers(Strings& strings) {
  std::vector<char*> result;
  for (std::string& string : strings) {
    result.push_back(string.data());
  }
  result.push_back(nullptr);
  return result;
}

Strings environment_with(const std::map<std::string, std::string>& added) {
  Strings result;
  for (char** variable = environ; *variable != nullptr; variable++) {
    const std::string_view text = *variable;
    if (!added.contains(std::string(text.substr(0, text.find('='))))) {
      result.emplace_back(text);
    }
  }
  for (const auto& [name, value] : added) {
    result.push_back(name + "=" + value);
  }
  return result;
}

/// field 6 of /proc/PID/stat and its state, field 3; comm may hold anything, so from the last ')'.
struct ProcStat {
  char state = 'Z';
  pid_t session = -1;
};
ProcStat read_stat(const std::string& proc_pid) {
  const std::string text = read_file(proc_pid + "/stat");
  ProcStat stat;
  const size_t paren = text.rfind(')');
  if (paren != text.npos) {
    pid_t parent, group;
    std::istringstream(text.substr(paren + 1)) >> stat.state >> parent >> group >> stat.session;
  }
  return stat;
}

Strings concat(Strings left, const Strings& right) {
  left.insert(left.end(), right.begin(), right.end());
  return left;
}

const Json& member(const Json& object, const std::string& key) {
  if (!object.is_object() || !object.contains(key)) {
    fail("no key `" + key + "` in " + object.dump());
  }
  return object.at(key);
}

uint64_t number(const Json& object, const std::string& key) {
  const Json& value = member(object, key);
  if (!value.is_number_unsigned()) {
    fail("`" + key + "` is " + value.dump() + ", not an unsigned number");
  }
  return value.get<uint64_t>();
}

// Asked once per process: gtest_discover_tests starts one for each test.
const Outcome& host_check() {
  static const Outcome outcome = run_jemtrace({"check"});
  return outcome;
}

}  // namespace

bool everything_is_required() {
  return environment("JEMTRACE_LIVE") == "require" || environment("CI") == "true";
}

void LiveTest::SetUp() {
  const Outcome& check = host_check();
  if (check.status == 0) {
    return;
  }
  const std::string reason =
      "jemtrace check: status " + std::to_string(check.status) + "\n" + check.out + check.err;
  if (check.status != 77 || everything_is_required()) {
    FAIL() << reason;
  }
  GTEST_SKIP() << reason;
}

std::string jemtrace_path() {
  const std::string path = environment("JEMTRACE");
  return path.empty() ? JEMTRACE_PATH : path;
}

std::string workload(std::string_view name) {
  return std::string(WORKLOADS_PATH) + "/" + std::string(name);
}

std::string free_port() {
  for (int port = 20000 + getpid() % 10000;; port++) {
    const int probe = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    const int yes = 1;
    setsockopt(probe, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(static_cast<uint16_t>(port));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    const bool is_free = bind(probe, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0;
    close(probe);
    if (is_free) {
      return std::to_string(port);
    }
  }
}

int number_from_environment(const char* name, int otherwise) {
  const std::string text = environment(name);
  return text.empty() ? otherwise : static_cast<int>(to_number(text));
}

TemporaryFile::TemporaryFile()
    : path_((std::filesystem::temp_directory_path() / "jemtrace-live-XXXXXX").string()) {
  const int fd = mkstemp(path_.data());
  if (fd < 0) {
    fail_errno("mkstemp");
  }
  fchmod(fd, 0666);
  close(fd);
}

TemporaryFile::~TemporaryFile() {
  unlink(path_.c_str());
}

std::string TemporaryFile::read() const {
  return read_file(path_);
}

Process::Process(const Strings& command, const Options& options) : start_(Clock::now()) {
  Strings arguments = command;
  Strings variables = environment_with(options.environment);
  const std::vector<char*> argv = pointers(arguments);
  const std::vector<char*> envp = pointers(variables);

  int input[2];
  if (pipe2(input, O_CLOEXEC) != 0) {
    fail_errno("pipe");
  }
  pid_ = fork();
  if (pid_ < 0) {
    fail_errno("fork");
  }
  if (pid_ == 0) {
    setsid();
    const int in = options.with_stdin ? input[0] : open("/dev/null", O_RDONLY);
    const int out =
        options.stdout_fd >= 0 ? options.stdout_fd : open(out_.path().c_str(), O_WRONLY | O_APPEND);
    dup2(in, STDIN_FILENO);
    dup2(out, STDOUT_FILENO);
    dup2(open(err_.path().c_str(), O_WRONLY | O_APPEND | O_CLOEXEC), STDERR_FILENO);
    execvpe(argv[0], argv.data(), envp.data());
    dprintf(STDERR_FILENO, "exec %s: %s\n", argv[0], strerror(errno));
    _exit(125);
  }
  close(input[0]);
  if (options.with_stdin) {
    stdin_ = input[1];
  } else {
    close(input[1]);
  }
}

Process::~Process() {
  if (stdin_ >= 0) {
    close(stdin_);
  }
  for (const pid_t member : session_members(pid_)) {
    kill(member, SIGKILL);
  }
  if (!status_) {
    kill(pid_, SIGKILL);
    reap(true);
  }
}

bool Process::reap(bool block) {
  int status = 0;
  if (status_) {
    return true;
  }
  pid_t reaped;
  do {
    reaped = waitpid(pid_, &status, block ? 0 : WNOHANG);
  } while (reaped < 0 && errno == EINTR);
  if (reaped == pid_) {
    status_ = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  }
  return status_.has_value();
}

bool Process::ended() {
  return reap(false);
}

void Process::close_stdin() {
  close(stdin_);
  stdin_ = -1;
}

void Process::send(std::string_view line) const {
  const std::string text = std::string(line) + "\n";
  if (write(stdin_, text.data(), text.size()) != static_cast<ssize_t>(text.size())) {
    fail_errno("write to the process");
  }
}

void Process::signal(int number) const {
  kill(pid_, number);
}

void Process::wait_for_out(std::string_view text, milliseconds limit) {
  wait_for_text(text, "stdout", out_, limit);
}

void Process::wait_for_err(std::string_view text, milliseconds limit) {
  wait_for_text(text, "stderr", err_, limit);
}

void Process::wait_for_text(std::string_view text, const char* where, const TemporaryFile& file,
                            milliseconds limit) {
  wait_until(
      std::string(text) + " on " + where,
      [&] {
        const bool over = ended();
        const bool found = file.read().find(text) != std::string::npos;
        if (over && !found) {
          fail("the process ended without: " + std::string(text) + "\n" + out() + err());
        }
        return found;
      },
      limit);
}

void Process::wait_for_syscall(long number, milliseconds limit) const {
  wait_until(
      "a process in system call " + std::to_string(number),
      [&] {
        std::ifstream file("/proc/" + std::to_string(pid_) + "/syscall");
        std::string word;
        file >> word;
        return word == std::to_string(number);
      },
      limit);
}

Outcome Process::wait(milliseconds limit) {
  wait_until(
      "the end of the process; its stderr: " + err(), [&] { return ended(); }, limit);
  return {*status_, out(), err(), std::chrono::duration_cast<milliseconds>(Clock::now() - start_)};
}

std::vector<pid_t> session_members(pid_t session) {
  std::vector<pid_t> members;
  for (const auto& entry : std::filesystem::directory_iterator("/proc")) {
    const std::string name = entry.path().filename().string();
    if (name.find_first_not_of("0123456789") != name.npos) {
      continue;
    }
    const ProcStat stat = read_stat(entry.path().string());
    if (stat.session == session && stat.state != 'Z') {
      members.push_back(static_cast<pid_t>(to_number(name)));
    }
  }
  return members;
}

void wait_step(std::string_view what, Clock::time_point end) {
  if (Clock::now() > end) {
    fail("waited in vain for " + std::string(what));
  }
  std::this_thread::sleep_for(2ms);
}

Counters Counters::operator-(const Counters& before) const {
  return {dirty_npurge - before.dirty_npurge,     dirty_nmadvise - before.dirty_nmadvise,
          dirty_purged - before.dirty_purged,     muzzy_npurge - before.muzzy_npurge,
          muzzy_nmadvise - before.muzzy_nmadvise, muzzy_purged - before.muzzy_purged};
}

std::ostream& operator<<(std::ostream& out, const Counters& counters) {
  return out << "{dirty: " << counters.dirty_npurge << " npurge, " << counters.dirty_nmadvise << " nmadvise, "
             << counters.dirty_purged << " purged; muzzy: " << counters.muzzy_npurge << " npurge, "
             << counters.muzzy_nmadvise << " nmadvise, " << counters.muzzy_purged << " purged}";
}

std::ostream& operator<<(std::ostream& out, const Calls& calls) {
  return out << "{" << calls.calls << " calls, " << calls.bytes << " bytes}";
}

uint64_t Block::number(const std::string& key) const {
  if (!has(key)) {
    fail("the workload did not print " + key);
  }
  return to_number(text(key));
}

Counters Block::counters(const std::string& prefix) const {
  return {number(prefix + "dirty_npurge"),   number(prefix + "dirty_nmadvise"),
          number(prefix + "dirty_purged"),   number(prefix + "muzzy_npurge"),
          number(prefix + "muzzy_nmadvise"), number(prefix + "muzzy_purged")};
}

std::vector<Block> parse_blocks(std::string_view text) {
  std::vector<std::map<std::string, std::string>> blocks;
  std::istringstream lines{std::string(text)};
  for (std::string line; std::getline(lines, line);) {
    const size_t equals = line.find('=');
    if (equals == line.npos) {
      fail("not a key=value line: " + line);
    }
    const std::string key = line.substr(0, equals);
    if (key == "pid") {
      blocks.emplace_back();
    }
    if (blocks.empty()) {
      fail("a line before the first pid=: " + line);
    }
    blocks.back()[key] = line.substr(equals + 1);
  }
  return {blocks.begin(), blocks.end()};
}

Block parse_block(std::string_view text) {
  const std::vector<Block> blocks = parse_blocks(text);
  if (blocks.size() != 1) {
    fail("the workload printed " + std::to_string(blocks.size()) + " blocks:\n" + std::string(text));
  }
  return blocks[0];
}

Output::Output(std::string_view text) {
  if (!text.empty() && text.back() != '\n') {
    fail("the last line of the NDJSON is not whole");
  }
  std::istringstream lines{std::string(text)};
  for (std::string line; std::getline(lines, line);) {
    Json object = Json::parse(line);
    if (!object.is_object() || object.empty() || object.begin().key() != "type") {
      fail("`type` is not the first key of " + line);
    }
    lines_.push_back(std::move(object));
  }
  if (lines_.empty() || lines_[0]["type"] != "header") {
    fail("no header in the NDJSON: " + std::string(text.substr(0, 200)));
  }
}

std::vector<Json> Output::of_type(std::string_view type) const {
  std::vector<Json> found;
  for (const Json& line : lines_) {
    if (line["type"] == type) {
      found.push_back(line);
    }
  }
  return found;
}

std::vector<Json> Output::summaries_of(pid_t pid) const {
  std::vector<Json> found;
  for (const Json& summary : of_type("summary")) {
    if (number(summary, "pid") == static_cast<uint64_t>(pid)) {
      found.push_back(summary);
    }
  }
  return found;
}

Json Output::only(std::string_view type, pid_t pid) const {
  std::vector<Json> found;
  for (const Json& line : of_type(type)) {
    if (number(line, "pid") == static_cast<uint64_t>(pid)) {
      found.push_back(line);
    }
  }
  if (found.size() != 1) {
    fail(std::to_string(found.size()) + " lines of type " + std::string(type) + " for pid " +
         std::to_string(pid));
  }
  return found[0];
}

Counters counters_of(const Json& summary) {
  const Json& counters = member(summary, "counters");
  return {number(counters, "dirty_npurge"),   number(counters, "dirty_nmadvise"),
          number(counters, "dirty_purged"),   number(counters, "muzzy_npurge"),
          number(counters, "muzzy_nmadvise"), number(counters, "muzzy_purged")};
}

void expect_no_losses(const Json& summary) {
  const Json& losses = member(summary, "losses");
  EXPECT_FALSE(losses.empty());
  for (const auto& [kind, count] : losses.items()) {
    EXPECT_EQ(count, 0) << "lost: " << kind;
  }
}

Calls purge_calls_of(const Json& summary) {
  Calls sum;
  for (const Json& site : member(summary, "callsites")) {
    const std::string purpose = member(site, "purpose");
    const bool boot_probe = number(site, "calls_total") == 1 && number(site, "bytes_total") == 4096;
    if (purpose == "sweep" || purpose == "oversize" || (purpose == "unproven" && !boot_probe)) {
      sum.calls += number(site, "calls_total");
      sum.bytes += number(site, "bytes_total");
    }
  }
  return sum;
}

Calls other_calls_of(const Json& summary, const char* purpose) {
  const Json& other = member(summary, "other");
  if (!other.contains(purpose)) {
    return {};
  }
  return {number(other[purpose], "calls_total"), number(other[purpose], "bytes_total")};
}

bool knows_sources(const Json& target) {
  for (const Json& image : member(target, "images")) {
    if (member(image, "tier") == "syscall" || member(image, "tier") == "callsite") {
      return false;
    }
  }
  return true;
}

void expect_equal_to_jemalloc(const Json& summary, const Json& target, const Counters& truth) {
  if (knows_sources(target)) {
    EXPECT_EQ(counters_of(summary), truth);
  } else {
    EXPECT_EQ(purge_calls_of(summary), (Calls{truth.calls(), truth.bytes()})) << summary["callsites"].dump(2);
  }
  expect_no_losses(summary);
}

Outcome run_jemtrace(const Strings& arguments, const Process::Options& options, milliseconds limit) {
  return Process(concat({jemtrace_path()}, arguments), options).wait(limit);
}

void wait_for_jemalloc(pid_t pid) {
  wait_until("a jemalloc in pid " + std::to_string(pid), [&] {
    return run_jemtrace({"list", "-p", std::to_string(pid)}).status == 0;
  });
}

Trace run_traced(const Strings& command, const Process::Options& options, const Strings& jemtrace_options,
                 milliseconds limit) {
  const TemporaryFile file;
  Strings arguments = concat({"-f", "json", "-o", file.path()}, jemtrace_options);
  arguments.push_back("--");
  Outcome outcome = run_jemtrace(concat(arguments, command), options, limit);
  return {std::move(outcome), file.read()};
}

Tracer::Tracer(const Strings& arguments)
    : process_(concat({jemtrace_path(), "-v", "-f", "json", "-o", file_.path()}, arguments)) {}

Tracer::Tracer(const Strings& arguments, const Strings& launcher, uid_t user)
    : process_([&] {
        if (::chown(file_.path().c_str(), user, user) != 0) {
          fail_errno("chown");
        }
        return concat(launcher, concat({jemtrace_path(), "-v", "-f", "json", "-o", file_.path()}, arguments));
      }()) {}

void Tracer::wait_for(pid_t pid) {
  process_.wait_for_err("attach:");
  wait_for_lines("a target line of pid " + std::to_string(pid), [&](const Json& line) {
    return line.value("type", "") == "target" && line.value("pid", 0) == pid;
  });
}

void Tracer::wait_for_lines(const std::string& what, const std::function<bool(const Json&)>& wanted,
                            size_t count) {
  wait_until(what + "; stderr: " + process_.err(), [&] {
    const bool over = process_.ended();
    size_t found = 0;
    std::istringstream lines(file_.read());
    for (std::string line; std::getline(lines, line);) {
      const Json object = Json::parse(line, nullptr, false);
      found += object.is_object() && wanted(object) ? 1 : 0;
    }
    if (over && found < count) {
      fail("jemtrace ended without " + what + ": " + process_.err());
    }
    return found >= count;
  });
}

Trace Tracer::stop() {
  process_.signal(SIGINT);
  return wait();
}

Trace Tracer::wait(milliseconds limit) {
  Outcome outcome = process_.wait(limit);
  return {std::move(outcome), file_.read()};
}

Controlled::Controlled(std::string_view name, const std::string& malloc_conf, const Strings& arguments)
    : process_(concat({workload(name)}, arguments),
               {.environment = {{"MALLOC_CONF", malloc_conf}}, .with_stdin = true}) {
  process_.wait_for_out("done=start\n");
  answered_ = process_.out().size();
}

void Controlled::command(const std::string& line) {
  process_.send(line);
  wait_until("the answer to " + line,
             [&] { return process_.out().find("\ndone=", answered_) != std::string::npos; });
  answered_ = process_.out().size();
}

Counters Controlled::counters() {
  const size_t begin = answered_;
  command("counters");
  return parse_block(process_.out().substr(begin)).counters();
}

Outcome Controlled::quit() {
  process_.send("quit");
  return process_.wait();
}

}  // namespace jemtrace::live
