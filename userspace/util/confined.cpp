#include "util/confined.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <grp.h>
#include <poll.h>
#include <sched.h>
#include <seccomp.h>
#include <signal.h>
#include <sys/capability.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cstring>
#include <memory>

#include "util/file.hpp"

#if defined(__SANITIZE_ADDRESS__)
#define JT_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define JT_ASAN 1
#endif
#endif
#ifndef JT_ASAN
#define JT_ASAN 0
#endif

namespace jemtrace {
namespace {

using Clock = std::chrono::steady_clock;

constexpr uid_t nobody = 65534;
constexpr size_t max_question = 4096;
constexpr int max_questions = 16;
constexpr rlim_t max_descriptors = 64;  // what was asked for; opening is not possible anyway

enum class Kind : uint32_t { question = 1, answer = 2, failure = 3 };

/// What the child writes: this, then `size` bytes.
struct Frame {
  Kind kind;
  uint32_t size;
};

// ---- the child -------------------------------------------------------------------------------------------

void send_all(int to, const void* from, size_t size) {
  const auto* at = static_cast<const char*>(from);
  while (size > 0) {
    const ssize_t n = ::write(to, at, size);
    if (n < 0 && errno == EINTR) {
      continue;
    }
    if (n <= 0) {
      ::_exit(2);  // nobody listens
    }
    at += n;
    size -= static_cast<size_t>(n);
  }
}

void send_frame(int to, Kind kind, std::string_view bytes) {
  const Frame frame{kind, static_cast<uint32_t>(bytes.size())};
  send_all(to, &frame, sizeof frame);
  send_all(to, bytes.data(), bytes.size());
}

/// The parent's reply: an errno, and with 0 a descriptor.
Result<Fd> receive_file(int from, const std::string& name) {
  int error = EPROTO;
  iovec data{&error, sizeof error};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  msghdr message{};
  message.msg_iov = &data;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  ssize_t n = 0;
  do {
    n = ::recvmsg(from, &message, MSG_CMSG_CLOEXEC);
  } while (n < 0 && errno == EINTR);
  if (n != sizeof error) {
    return fail(Errc::system, "no reply about " + name);
  }
  if (error != 0) {
    return fail_errno("cannot open " + name, error);
  }
  const cmsghdr* header = CMSG_FIRSTHDR(&message);
  if (header == nullptr || header->cmsg_type != SCM_RIGHTS) {
    return fail(Errc::system, "no descriptor for " + name);
  }
  int fd = -1;
  std::memcpy(&fd, CMSG_DATA(header), sizeof fd);
  return Fd(fd);
}

/// close_range(2) is new in Linux 5.9.
void close_between(unsigned first, unsigned last) {
  if (first > last || ::syscall(SYS_close_range, first, last, 0) == 0) {
    return;
  }
  const auto end = static_cast<unsigned>(std::clamp<long>(::sysconf(_SC_OPEN_MAX), 1024, 1 << 20));
  for (unsigned fd = first; fd <= last && fd < end; ++fd) {
    ::close(static_cast<int>(fd));
  }
}

void close_all_but(int a, int b) {
  const auto low = static_cast<unsigned>(std::min(a, b));
  const auto high = static_cast<unsigned>(std::max(a, b));
  if (low > 0) {
    close_between(0, low - 1);
  }
  close_between(low + 1, high - 1);
  close_between(high + 1, ~0U);
}

/// Memory that a fork shares instead of copying: the kernel side's rings and variables.
Status unmap_shared() {
  ASSIGN_OR_RETURN(const std::string maps, read_file("/proc/self/maps"));
  for (size_t at = 0; at < maps.size();) {
    const size_t end = std::min(maps.find('\n', at), maps.size());
    const char* const last = maps.data() + end;
    uintptr_t start = 0;
    uintptr_t stop = 0;
    auto parsed = std::from_chars(maps.data() + at, last, start, 16);
    if (parsed.ec == std::errc{} && parsed.ptr < last) {
      parsed = std::from_chars(parsed.ptr + 1, last, stop, 16);
    }
    // "start-end rwxs"
    if (parsed.ec == std::errc{} && last - parsed.ptr > 4 && parsed.ptr[4] == 's') {
      // NOLINTNEXTLINE(performance-no-int-to-ptr): the kernel wrote it as a number
      ::munmap(reinterpret_cast<void*>(start), stop - start);
    }
    at = end + 1;
  }
  return {};
}

Status limit(__rlimit_resource resource, rlim_t soft, const char* name) {
  rlimit now{};
  if (::getrlimit(resource, &now) != 0) {
    return fail_errno(std::string("cannot read ") + name);
  }
  now.rlim_cur = std::min(soft, now.rlim_max);
  if (::setrlimit(resource, &now) != 0) {
    return fail_errno(std::string("cannot set ") + name);
  }
  return {};
}

Result<uint64_t> address_space_in_use() {
  ASSIGN_OR_RETURN(const std::string statm, read_file("/proc/self/statm", 4096));
  return std::strtoull(statm.c_str(), nullptr, 10) * static_cast<uint64_t>(::sysconf(_SC_PAGESIZE));
}

/// Only the soft limits: seccomp keeps the child from raising them, and the parent can.
Status set_limits(const Budget& budget) {
  if (!JT_ASAN) {  // its shadow alone is terabytes
    ASSIGN_OR_RETURN(const uint64_t in_use, address_space_in_use());
    TRY(limit(RLIMIT_AS, in_use + budget.memory_bytes, "RLIMIT_AS"));
  }
  TRY(limit(RLIMIT_CPU, static_cast<rlim_t>(budget.cpu.count()), "RLIMIT_CPU"));
  TRY(limit(RLIMIT_FSIZE, 0, "RLIMIT_FSIZE"));
  TRY(limit(RLIMIT_CORE, 0, "RLIMIT_CORE"));
  return limit(RLIMIT_NOFILE, max_descriptors, "RLIMIT_NOFILE");
}

Status drop_user_and_capabilities() {
  if (::geteuid() == 0) {
    // EINVAL: a user namespace that has no such user. EPERM: a root without CAP_SETUID and CAP_SETGID, as in
    // a container that was given few capabilities; what it has is dropped below, and seccomp opens nothing.
    const auto bearable = [] { return errno == EINVAL || errno == EPERM; };
    if ((::setgroups(0, nullptr) != 0 && !bearable()) ||
        (::setresgid(nobody, nobody, nobody) != 0 && !bearable()) ||
        (::setresuid(nobody, nobody, nobody) != 0 && !bearable())) {
      return fail_errno("cannot become nobody");
    }
  }
  struct Free {
    void operator()(cap_t set) const { ::cap_free(set); }
  };
  const std::unique_ptr<std::remove_pointer_t<cap_t>, Free> none(::cap_init());
  if (!none || ::cap_set_proc(none.get()) != 0) {
    return fail_errno("cannot drop capabilities");
  }
  // What is left of the bounding set cannot be gained any more.
  if (::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) {
    return fail_errno("cannot set no_new_privs");
  }
  return {};
}

/// Reading what is open, memory, time, and nothing else. Others fail with EPERM, so that an odd question of
/// the C library does not cost an image; for an intruder it is as good as being killed.
Status allow_only_computing() {
  if (::prctl(PR_GET_SECCOMP, 0, 0, 0, 0) < 0 && errno == EINVAL) {
    return {};  // a kernel without it
  }
  struct Free {
    void operator()(void* filter) const { ::seccomp_release(filter); }
  };
  const std::unique_ptr<void, Free> filter(::seccomp_init(SCMP_ACT_ERRNO(EPERM)));
  bool ok = filter != nullptr;
  const auto allow = [&](int call, std::initializer_list<scmp_arg_cmp> when) {
    ok = ok && ::seccomp_rule_add_array(filter.get(), SCMP_ACT_ALLOW, call,
                                        static_cast<unsigned>(when.size()), when.begin()) == 0;
  };
  for (const int call : {SCMP_SYS(read), SCMP_SYS(pread64), SCMP_SYS(lseek), SCMP_SYS(fstat), SCMP_SYS(close),
                         SCMP_SYS(recvmsg), SCMP_SYS(write), SCMP_SYS(munmap), SCMP_SYS(mremap),
                         SCMP_SYS(brk), SCMP_SYS(madvise), SCMP_SYS(futex), SCMP_SYS(rt_sigprocmask),
                         SCMP_SYS(rt_sigaction), SCMP_SYS(rt_sigreturn), SCMP_SYS(clock_gettime),
                         SCMP_SYS(getrandom), SCMP_SYS(exit), SCMP_SYS(exit_group)}) {
    allow(call, {});
  }
  // How glibc spells fstat(2).
  allow(SCMP_SYS(newfstatat), {SCMP_A3(SCMP_CMP_EQ, AT_EMPTY_PATH)});
  allow(SCMP_SYS(mmap), {SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0),
                         SCMP_A3(SCMP_CMP_MASKED_EQ, MAP_ANONYMOUS, MAP_ANONYMOUS)});
  allow(SCMP_SYS(mprotect), {SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0)});
  if (JT_ASAN) {  // asks for it at each exception
    allow(SCMP_SYS(sigaltstack), {});
  }
  if (!ok) {
    return fail(Errc::system, "cannot make a seccomp filter");
  }
  if (const int error = ::seccomp_load(filter.get()); error != 0) {
    return fail_errno("cannot load a seccomp filter", -error);
  }
  return {};
}

Status confine(const Confinement& confinement, int channel, pid_t parent) {
  close_all_but(confinement.file, channel);
  TRY(unmap_shared());
  const sched_param ordinary{.sched_priority = 0};
  ::sched_setscheduler(0, SCHED_OTHER, &ordinary);  // never as a real-time thread, whatever we are
  if (const Fd score(::open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC)); score) {
    (void)!::write(score.get(), "1000",
                   4);  // when memory is short, rather this one than the process that traces
  }
  TRY(set_limits(confinement.budget));
  TRY(drop_user_and_capabilities());
  // After the change of user, which resets both.
  ::prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
  if (::prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) != 0 || ::getppid() != parent) {
    return fail(Errc::system, "the parent has gone");
  }
  return allow_only_computing();
}

[[noreturn]] void be_the_child(const Confinement& confinement, int channel, pid_t parent, const Work& work) {
  try {
    if (const auto status = confine(confinement, channel, parent); !status) {
      send_frame(channel, Kind::failure, status.error().message());
      ::_exit(1);
    }
    const Ask ask = [&](const std::string& name) -> Result<Fd> {
      send_frame(channel, Kind::question, name.substr(0, max_question));
      return receive_file(channel, name);
    };
    const std::string answer = work(confinement.file, ask);
    send_frame(channel, Kind::answer, answer);
    ::_exit(0);
  } catch (...) {
    ::_exit(3);  // out of memory, most likely
  }
}

// ---- the parent ------------------------------------------------------------------------------------------

/// Owns the child: it never outlives the object.
class Child {
 public:
  explicit Child(pid_t pid) : pid_(pid) {}
  ~Child() { end(); }
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;

  [[nodiscard]] pid_t pid() const { return pid_; }

  /// Its wait status. One that has ended by itself keeps its own.
  int end() {
    if (pid_ > 0) {
      ::kill(pid_, SIGKILL);
      while (::waitpid(pid_, &status_, 0) < 0 && errno == EINTR) {
      }
      pid_ = -1;
    }
    return status_;
  }

 private:
  pid_t pid_;
  int status_ = 0;
};

class Conversation {
 public:
  Conversation(const Confinement& confinement, const Give& give, Child& child, int channel)
      : confinement_(confinement),
        give_(give),
        child_(child),
        channel_(channel),
        budget_(confinement.budget) {}

  Result<std::string> run() {
    const auto start = Clock::now();
    for (;;) {
      ASSIGN_OR_RETURN(const bool complete, take_frames());
      if (complete) {
        return std::move(answer_);
      }
      const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(
          start + wall_limit(budget_.cpu) - Clock::now());
      pollfd poll{.fd = channel_, .events = POLLIN, .revents = 0};
      const int ready = left.count() <= 0 ? 0 : ::poll(&poll, 1, static_cast<int>(left.count()));
      if (ready < 0 && errno != EINTR) {
        return fail_errno("cannot wait for a child process");
      }
      if (ready == 0) {
        return too_slow(std::chrono::duration_cast<std::chrono::seconds>(wall_limit(budget_.cpu)), "");
      }
      if (ready > 0) {
        ASSIGN_OR_RETURN(const bool more, receive());
        if (!more) {
          return how_it_ended();
        }
      }
    }
  }

 private:
  tl::unexpected<Error> too_slow(std::chrono::seconds limit, const char* of_what) const {
    return fail(Errc::too_large, fmt::format("{} took more than {} s{} to look at and was given up",
                                             confinement_.path, limit.count(), of_what));
  }

  /// False at the end.
  Result<bool> receive() {
    const size_t have = buffer_.size();
    buffer_.resize(have + (size_t{1} << 16));
    const ssize_t n = ::recv(channel_, buffer_.data() + have, buffer_.size() - have, MSG_DONTWAIT);
    const int error = errno;
    buffer_.resize(have + static_cast<size_t>(std::max<ssize_t>(n, 0)));
    if (n < 0 && error != EINTR && error != EAGAIN && error != ECONNRESET) {
      return fail_errno("cannot hear a child process", error);
    }
    return n > 0 || (n < 0 && error != ECONNRESET);
  }

  /// True once there is an answer.
  Result<bool> take_frames() {
    Frame frame{};
    while (buffer_.size() >= sizeof frame) {
      std::memcpy(&frame, buffer_.data(), sizeof frame);
      const size_t most = frame.kind == Kind::answer ? confinement_.max_answer : max_question;
      const bool known =
          frame.kind == Kind::question || frame.kind == Kind::answer || frame.kind == Kind::failure;
      if (!known || frame.size > most) {
        return fail(Errc::malformed,
                    fmt::format("the child process that looked at {} made no sense", confinement_.path));
      }
      if (buffer_.size() < sizeof frame + frame.size) {
        return false;
      }
      std::string body = buffer_.substr(sizeof frame, frame.size);
      buffer_.erase(0, sizeof frame + frame.size);
      if (frame.kind == Kind::answer) {
        answer_ = std::move(body);
        return true;
      }
      if (frame.kind == Kind::failure) {
        return fail(Errc::system,
                    fmt::format("cannot look at {} without privileges: {}", confinement_.path, body));
      }
      TRY(reply(body));
    }
    return false;
  }

  Status reply(const std::string& question) {
    if (++questions_ > max_questions) {
      return fail(Errc::malformed, fmt::format("{} asks for too many files", confinement_.path));
    }
    auto given = give_ ? give_(question) : Result<Given>(fail(Errc::denied, "not given"));
    int error = 0;
    if (given) {
      allow_more(given->more);
    } else {
      error = given.error().sys != 0 ? given.error().sys : EACCES;
    }
    iovec data{&error, sizeof error};
    alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
    msghdr message{};
    message.msg_iov = &data;
    message.msg_iovlen = 1;
    if (given) {
      message.msg_control = control;
      message.msg_controllen = sizeof control;
      cmsghdr* header = CMSG_FIRSTHDR(&message);
      header->cmsg_level = SOL_SOCKET;
      header->cmsg_type = SCM_RIGHTS;
      header->cmsg_len = CMSG_LEN(sizeof(int));
      const int fd = given->file.get();
      std::memcpy(CMSG_DATA(header), &fd, sizeof fd);
    }
    // One that does not listen ends at its time limit.
    (void)::sendmsg(channel_, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
    return {};
  }

  /// Of another user's process only CAP_SYS_RESOURCE may raise limits; without it the child gets by, or
  /// fails.
  void allow_more(const Budget& more) {
    if (raise(RLIMIT_AS, more.memory_bytes)) {
      budget_.memory_bytes += more.memory_bytes;
    }
    if (raise(RLIMIT_CPU, static_cast<rlim_t>(more.cpu.count()))) {
      budget_.cpu += more.cpu;
    }
  }
  [[nodiscard]] bool raise(__rlimit_resource resource, rlim_t by) const {
    rlimit now{};
    if (::prlimit(child_.pid(), resource, nullptr, &now) != 0) {
      return false;
    }
    now.rlim_cur =
        std::min(now.rlim_max, now.rlim_cur > now.rlim_max - by ? now.rlim_max : now.rlim_cur + by);
    return ::prlimit(child_.pid(), resource, &now, nullptr) == 0;
  }

  tl::unexpected<Error> how_it_ended() {
    const int status = child_.end();
    if (WIFSIGNALED(status) && WTERMSIG(status) == SIGXCPU) {
      return too_slow(budget_.cpu, " of CPU time");
    }
    if (WIFSIGNALED(status)) {
      const char* signal = ::sigdescr_np(WTERMSIG(status));
      return fail(Errc::malformed, fmt::format("the child process that looked at {} was ended by: {}",
                                               confinement_.path, signal == nullptr ? "a signal" : signal));
    }
    if (WEXITSTATUS(status) == 3) {
      return fail(Errc::too_large, fmt::format("{} needs more than {} MB of memory to look at",
                                               confinement_.path, budget_.memory_bytes >> 20));
    }
    return fail(Errc::malformed, fmt::format("the child process that looked at {} left with status {}",
                                             confinement_.path, WEXITSTATUS(status)));
  }

  const Confinement& confinement_;
  const Give& give_;
  Child& child_;
  int channel_;
  Budget budget_;
  int questions_ = 0;
  std::string buffer_;
  std::string answer_;
};

}  // namespace

std::chrono::milliseconds wall_limit(std::chrono::seconds cpu) {
  return 2 * cpu;
}

Result<std::string> run_confined(const Confinement& confinement, const Work& work, const Give& give) {
  int ends[2];
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) {
    return fail_errno("cannot make a socket pair");
  }
  const Fd ours(ends[0]);
  Fd theirs(ends[1]);
  const pid_t parent = ::getpid();
  const pid_t pid = ::fork();
  if (pid < 0) {
    return fail_errno("cannot fork");
  }
  if (pid == 0) {
    be_the_child(confinement, theirs.get(), parent, work);
  }
  Child child(pid);
  theirs.reset();
  return Conversation(confinement, give, child, ours.get()).run();
}

}  // namespace jemtrace
