#include "collect/launch.hpp"

#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdlib>

#include "util/text.hpp"

namespace jemtrace::collect {
namespace {

[[noreturn]] void run_child(const std::vector<std::string>& command,
                            const std::map<std::string, std::string>& environment, int start, int failed) {
  char go = 0;
  ssize_t n = 0;
  do {
    n = ::read(start, &go, 1);
  } while (n < 0 && errno == EINTR);
  if (n != 1) {
    ::_exit(127);  // the tracer is gone
  }
  // Should the tracer die while it has this process stopped, the process goes on.
  ::prctl(PR_SET_PDEATHSIG, SIGCONT);
  sigset_t none;
  sigemptyset(&none);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);
  ::signal(SIGPIPE, SIG_DFL);
  for (const auto& [name, value] : environment) {
    ::setenv(name.c_str(), value.c_str(), 1);
  }
  std::vector<char*> argv;
  argv.reserve(command.size() + 1);
  for (const std::string& arg : command) {
    argv.push_back(const_cast<char*>(arg.c_str()));
  }
  argv.push_back(nullptr);
  ::execvp(argv[0], argv.data());
  const int err = errno;
  const ssize_t written = ::write(failed, &err, sizeof err);
  ::_exit(written == sizeof err ? 126 : 125);
}

struct Pipe {
  Fd read, write;
};

Result<Pipe> make_pipe() {
  std::array<int, 2> ends{};
  if (::pipe2(ends.data(), O_CLOEXEC) != 0) {
    return fail_errno("cannot create a pipe");
  }
  return Pipe{Fd(ends[0]), Fd(ends[1])};
}

}  // namespace

Result<Launch> Launch::prepare(std::vector<std::string> command,
                               const std::map<std::string, std::string>& environment) {
  ASSIGN_OR_RETURN(Pipe start, make_pipe());
  ASSIGN_OR_RETURN(Pipe failed, make_pipe());
  Launch launch;
  launch.command_ = std::move(command);
  const pid_t pid = ::fork();
  if (pid < 0) {
    return fail_errno("cannot fork");
  }
  if (pid == 0) {
    start.write.reset();
    run_child(launch.command_, environment, start.read.get(), failed.write.get());
  }
  launch.pid_ = pid;
  launch.pidfd_ = Fd(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));
  launch.start_ = std::move(start.write);
  launch.failed_ = std::move(failed.read);
  return launch;
}

Launch::~Launch() {
  if (start_) {  // never let go, and not moved from
    start_.reset();
    ::waitpid(pid_, nullptr, 0);
  }
}

Status Launch::go() {
  const char byte = 1;
  if (::write(start_.get(), &byte, 1) != 1) {
    return fail_errno("cannot start " + escape(command_[0]));
  }
  start_.reset();
  // The other end closes when exec succeeds, and brings errno when it does not.
  int err = 0;
  ssize_t n = 0;
  do {
    n = ::read(failed_.get(), &err, sizeof err);
  } while (n < 0 && errno == EINTR);
  if (n == static_cast<ssize_t>(sizeof err)) {
    return tl::unexpected(Error{Errc::cannot_run, "cannot run " + escape(command_[0]), err,
                                err == ENOENT ? "is it spelled right, and in PATH?" : ""});
  }
  return {};
}

std::optional<int> Launch::exit_status() {
  if (status_) {
    return status_;
  }
  int raw = 0;
  if (::waitpid(pid_, &raw, WNOHANG) != pid_) {
    return std::nullopt;
  }
  status_ = WIFSIGNALED(raw) ? 128 + WTERMSIG(raw) : WEXITSTATUS(raw);
  return status_;
}

}  // namespace jemtrace::collect
