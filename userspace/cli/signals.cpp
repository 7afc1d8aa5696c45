#include "cli/signals.hpp"

#include <sys/signalfd.h>
#include <unistd.h>

namespace jemtrace::cli {

Signals::Signals() {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGINT);
  sigaddset(&set, SIGTERM);
  ::sigprocmask(SIG_BLOCK, &set, &old_);
  fd_ = Fd(::signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK));
}

Signals::~Signals() {
  ::sigprocmask(SIG_SETMASK, &old_, nullptr);
}

bool Signals::take() {
  signalfd_siginfo info{};
  if (::read(fd_.get(), &info, sizeof info) != static_cast<ssize_t>(sizeof info)) {
    return false;
  }
  ::sigprocmask(SIG_SETMASK, &old_, nullptr);
  return true;
}

}  // namespace jemtrace::cli
