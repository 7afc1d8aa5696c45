#include "cli/signals.hpp"

#include <sys/signalfd.h>
#include <unistd.h>

namespace jemtrace::cli {

Signals::Signals() {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGINT);
  sigaddset(&set, SIGTERM);
  // A terminal that is closed ends us as Ctrl-C does, with all that is known by then. nohup(1) ignores it.
  struct sigaction hangup {};
  if (::sigaction(SIGHUP, nullptr, &hangup) == 0 && hangup.sa_handler != SIG_IGN) {
    sigaddset(&set, SIGHUP);
  }
  ::sigprocmask(SIG_BLOCK, &set, &old_);
  fd_ = Fd(::signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK));
}

Signals::~Signals() {
  while (read()) {  // it came while all was ending anyway: not to be killed by it
  }
  ::sigprocmask(SIG_SETMASK, &old_, nullptr);
}

bool Signals::read() {
  signalfd_siginfo info{};
  return ::read(fd_.get(), &info, sizeof info) == static_cast<ssize_t>(sizeof info);
}

bool Signals::take() {
  if (!read()) {
    return false;
  }
  ::sigprocmask(SIG_SETMASK, &old_, nullptr);
  return true;
}

}  // namespace jemtrace::cli
