#include "read/call/tracee.hpp"

#include <elf.h>
#include <fmt/format.h>
#include <sched.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <vector>

#include "util/file.hpp"

namespace jemtrace::read {

SignalsHeld::SignalsHeld() {
  sigset_t all;
  ::sigfillset(&all);
  for (const int fault : {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP, SIGABRT}) {
    ::sigdelset(&all, fault);
  }
  ::pthread_sigmask(SIG_BLOCK, &all, &before_);
  // A parent may have left it ignored, and then no stop of a thread would be told.
  struct sigaction ordinary {};
  ordinary.sa_handler = SIG_DFL;
  ::sigaction(SIGCHLD, &ordinary, &child_before_);
}

SignalsHeld::~SignalsHeld() {
  ::sigaction(SIGCHLD, &child_before_, nullptr);
  ::pthread_sigmask(SIG_SETMASK, &before_, nullptr);
}

Hurry::Hurry() : policy_(::sched_getscheduler(0)) {
  const sched_param first{.sched_priority = 1};
  raised_ = policy_ == SCHED_OTHER && ::sched_setscheduler(0, SCHED_FIFO | SCHED_RESET_ON_FORK, &first) == 0;
}

Hurry::~Hurry() {
  if (raised_) {
    const sched_param ordinary{.sched_priority = 0};
    ::sched_setscheduler(0, policy_, &ordinary);
  }
}

#if defined(__x86_64__)

namespace {

// Where a call returns to: the first page is never mapped (vm.mmap_min_addr), so that it ends with a SIGSEGV
// which only we see. Nothing is written into the target's code.
constexpr uint64_t return_address = 0x10;
constexpr uint64_t callback_at = 0x20;
constexpr uint64_t unmapped = 0x1000;

constexpr uint64_t user_code_64 = 0x33;                  // cs
constexpr uint64_t trap_direction_alignment = 0x040500;  // EFLAGS that no function expects set
constexpr size_t max_xstate = 64 << 10;
constexpr size_t kernel_sigset = 8;

/// Signals that an instruction raises. They cannot wait: blocked, the kernel kills.
constexpr std::array faults = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP, SIGSYS};

constexpr int any_event = WEXITED | WSTOPPED | __WALL;

bool is_end(const siginfo_t& event) {
  return event.si_code == CLD_EXITED || event.si_code == CLD_KILLED || event.si_code == CLD_DUMPED;
}

template <typename Data>
long trace(int request, pid_t tid, uint64_t address, Data data) {
  return ::ptrace(static_cast<__ptrace_request>(request), tid, address, data);
}

}  // namespace

struct Tracee::State {
  pid_t pid = 0, tid = 0;
  Hurry hurry;
  SignalsHeld ours;  // before the thread is touched, until it is on its own again
  bool attached = false, stopped = false, prepared = false, group_stop = false;
  user_regs_struct saved{};
  std::vector<uint8_t> xstate;
  uint64_t sigmask = 0;
  uint64_t scratch = 0;
  std::vector<uint8_t> scratch_bytes;
  std::vector<int> held;  // signals that came all the same, to be sent again

  /// A sentence about the thread, with errno.
  [[nodiscard]] tl::unexpected<Error> failed(const char* what, int err = errno) const {
    return fail_errno(fmt::format("{} thread {} of pid {}", what, tid, pid), err);
  }

  tl::unexpected<Error> has_ended() {
    attached = false;
    return fail(Errc::gone, fmt::format("thread {} of pid {} has ended", tid, pid));
  }

  /// Its parent hears of the end of a traced process only after us; where we are the parent, it is for
  /// whoever of us started it.
  void take_end() const {
    const auto status = ProcRoot().read(pid, "status", 65536);
    const std::string ours = fmt::format("\nPPid:\t{}\n", ::getpid());
    if (tid == pid && status && status->find(ours) != std::string::npos) {
      return;
    }
    int ignored = 0;
    while (::waitpid(tid, &ignored, __WALL) < 0 && errno == EINTR) {
    }
  }

  /// The status of its next stop. Its end is Errc::gone.
  Result<int> wait(std::chrono::milliseconds limit, const std::function<void()>& slow) {
    const auto begin = std::chrono::steady_clock::now();
    bool told = false;
    sigset_t child;
    ::sigemptyset(&child);
    ::sigaddset(&child, SIGCHLD);
    for (;;) {
      siginfo_t next{};
      if (::waitid(P_PID, static_cast<id_t>(tid), &next, any_event | WNOHANG | WNOWAIT) != 0 &&
          errno != EINTR) {
        return has_ended();
      }
      int status = 0;
      if (next.si_pid == tid && is_end(next)) {
        take_end();
        return has_ended();
      }
      if (next.si_pid == tid && ::waitpid(tid, &status, __WALL | WNOHANG) == tid) {
        stopped = true;
        return status;
      }
      // Each stop sends SIGCHLD, which stays pending as it is blocked.
      const timespec slice{0, 20'000'000};
      ::sigtimedwait(&child, nullptr, &slice);
      if (!told && slow && std::chrono::steady_clock::now() - begin > limit) {
        told = true;
        slow();
      }
    }
  }

  Status resume(int signal = 0) {
    if (trace(PTRACE_CONT, tid, 0, static_cast<long>(signal)) != 0) {
      return failed("cannot resume");
    }
    stopped = false;
    return {};
  }

  Status get(user_regs_struct& registers) const {
    iovec where{&registers, sizeof registers};
    if (trace(PTRACE_GETREGSET, tid, NT_PRSTATUS, &where) != 0) {
      return failed("cannot read the registers of");
    }
    return {};
  }
  Status set(user_regs_struct registers) const {
    iovec where{&registers, sizeof registers};
    if (trace(PTRACE_SETREGSET, tid, NT_PRSTATUS, &where) != 0) {
      return failed("cannot set the registers of");
    }
    return {};
  }

  Status set_mask(uint64_t mask) const {
    if (trace(PTRACE_SETSIGMASK, tid, kernel_sigset, &mask) != 0) {
      return failed("cannot set the signal mask of");
    }
    return {};
  }

  /// Until the stop that was asked for; signals before it take their course.
  Status wait_for_interrupt() {
    for (;;) {
      ASSIGN_OR_RETURN(const int status, wait({}, {}));
      if (status >> 16 == PTRACE_EVENT_STOP) {
        group_stop = WSTOPSIG(status) != SIGTRAP;
        return {};
      }
      TRY(resume(WSTOPSIG(status)));
    }
  }

  /// All of it is tried: what fails must not keep the rest from being put back.
  Status restore() {
    Status status;
    const auto keep = [&status](Status one) {
      if (status && !one) {
        status = std::move(one);
      }
    };
    if (prepared) {
      prepared = false;
      iovec vectors{xstate.data(), xstate.size()};
      if (trace(PTRACE_SETREGSET, tid, NT_X86_XSTATE, &vectors) != 0) {
        keep(failed("cannot restore the vector registers of"));
      }
      keep(TargetMemory(pid).write(scratch, scratch_bytes));
      keep(set_mask(sigmask));
    }
    user_regs_struct registers = saved;
    const BlockedCall call{.number = static_cast<int64_t>(saved.orig_rax)};
    registers.rax = resumed_result(call, saved.rax);
    keep(set(registers));
    return status;
  }
};

Tracee::Tracee(std::unique_ptr<State> state) : state_(std::move(state)) {}

Tracee::~Tracee() {
  (void)release();
}

Result<std::unique_ptr<Tracee>> Tracee::seize(pid_t pid, pid_t tid) {
  auto state = std::make_unique<State>();
  state->pid = pid;
  state->tid = tid;
  // No PTRACE_O_EXITKILL: should we be killed, the thread shall go on.
  if (trace(PTRACE_SEIZE, tid, 0, 0L) != 0) {
    return state->failed("cannot trace");
  }
  state->attached = true;
  if (trace(PTRACE_INTERRUPT, tid, 0, 0L) != 0) {
    return state->failed("cannot stop");
  }
  TRY(state->wait_for_interrupt());
  TRY(state->get(state->saved));
  return std::unique_ptr<Tracee>(new Tracee(std::move(state)));
}

BlockedCall Tracee::where() const {
  const user_regs_struct& r = state_->saved;
  return {.number = static_cast<int64_t>(r.orig_rax),
          .args = {r.rdi, r.rsi, r.rdx, r.r10, r.r8, r.r9},
          .sp = r.rsp,
          .pc = r.rip};
}

uint64_t Tracee::frame_pointer() const {
  return state_->saved.rbp;
}

bool Tracee::runs_64_bit() const {
  return state_->saved.cs == user_code_64;
}

bool Tracee::process_stopped() const {
  return state_->group_stop;
}

Status Tracee::prepare(uint64_t scratch, size_t bytes) {
  State& s = *state_;
  s.xstate.resize(max_xstate);
  iovec vectors{s.xstate.data(), s.xstate.size()};
  if (trace(PTRACE_GETREGSET, s.tid, NT_X86_XSTATE, &vectors) != 0) {
    return s.failed("cannot read the vector registers of");
  }
  s.xstate.resize(vectors.iov_len);
  if (trace(PTRACE_GETSIGMASK, s.tid, kernel_sigset, &s.sigmask) != 0) {
    return s.failed("cannot read the signal mask of");
  }
  s.scratch = scratch;
  s.scratch_bytes.resize(bytes);
  TRY(TargetMemory(s.pid).read(scratch, s.scratch_bytes.data(), bytes));
  uint64_t mask = ~uint64_t{0};
  for (const int fault : faults) {
    mask &= ~(uint64_t{1} << (fault - 1));
  }
  s.prepared = true;
  return s.set_mask(mask);
}

Result<uint32_t> Tracee::call(uint64_t function, std::span<const uint64_t> args, uint64_t stack,
                              std::chrono::milliseconds limit, const std::function<void()>& slow,
                              const Callback& callback) {
  State& s = *state_;
  const uint64_t frame = stack - sizeof(uint64_t);
  const uint64_t to = return_address;
  TRY(TargetMemory(s.pid).write(frame, {reinterpret_cast<const uint8_t*>(&to), sizeof to}));
  user_regs_struct registers = s.saved;
  registers.orig_rax = ~uint64_t{0};  // in no system call: nothing to restart
  registers.rax = 0;
  registers.rip = function;
  registers.rsp = frame;
  registers.rbp = 0;
  registers.eflags &= ~trap_direction_alignment;
  decltype(registers.rdi)* const in[] = {&registers.rdi, &registers.rsi, &registers.rdx,
                                         &registers.rcx, &registers.r8,  &registers.r9};
  for (size_t i = 0; i < args.size() && i < std::size(in); ++i) {
    *in[i] = args[i];
  }
  TRY(s.set(registers));
  int inject = 0;
  for (;;) {
    TRY(s.resume(inject));
    inject = 0;
    ASSIGN_OR_RETURN(const int status, s.wait(limit, slow));
    const int signal = WSTOPSIG(status);
    if (status >> 16 == PTRACE_EVENT_STOP) {
      continue;  // the process was stopped: the call goes on, and its thread stops once it is let go
    }
    if (signal == SIGSEGV) {
      TRY(s.get(registers));
      if (registers.rip == return_address && registers.rsp == stack) {
        return static_cast<uint32_t>(registers.rax);
      }
      if (registers.rip == callback_at && callback) {
        if (const auto text = TargetMemory(s.pid).read_text(registers.rsi, size_t{64} << 20)) {
          callback(*text);
        }
        TRY(TargetMemory(s.pid).read(registers.rsp, &registers.rip, sizeof registers.rip));
        registers.rsp += sizeof(uint64_t);
        registers.orig_rax = ~uint64_t{0};
        TRY(s.set(registers));
        continue;
      }
    }
    siginfo_t info{};
    const bool by_instruction = std::find(faults.begin(), faults.end(), signal) != faults.end() &&
                                trace(PTRACE_GETSIGINFO, s.tid, 0, &info) == 0 && info.si_code > 0;
    if (by_instruction) {
      inject = signal;  // as without us: the program may have a handler that mends it
    } else {
      s.held.push_back(signal);
    }
  }
}

Status Tracee::release() {
  State& s = *state_;
  if (!s.attached) {
    return {};
  }
  if (!s.stopped) {
    // Only when seizing failed half way: the thread runs, and is let go when we end.
    return fail(Errc::system, fmt::format("thread {} of pid {} did not stop", s.tid, s.pid));
  }
  Status status = s.restore();
  for (const int signal : s.held) {
    ::syscall(SYS_tgkill, s.pid, s.tid, signal);
  }
  s.held.clear();
  if (trace(PTRACE_DETACH, s.tid, 0, 0L) != 0) {
    const int err = errno;
    if (err == ESRCH) {
      s.take_end();  // it was killed
    }
    status = s.failed("cannot let go of", err);
  }
  s.attached = s.stopped = false;
  return status;
}

uint64_t Tracee::callback_address() {
  return callback_at;
}

uint64_t Tracee::unmapped_below() {
  return unmapped;
}

#else

struct Tracee::State {};

Tracee::Tracee(std::unique_ptr<State> state) : state_(std::move(state)) {}
Tracee::~Tracee() = default;

Result<std::unique_ptr<Tracee>> Tracee::seize(pid_t, pid_t) {
  return fail(Errc::unsupported, "calling mallctl in a process is known for x86-64 only");
}
BlockedCall Tracee::where() const {
  return {};
}
uint64_t Tracee::frame_pointer() const {
  return 0;
}
bool Tracee::runs_64_bit() const {
  return true;
}
bool Tracee::process_stopped() const {
  return false;
}
Status Tracee::prepare(uint64_t, size_t) {
  return {};
}
Result<uint32_t> Tracee::call(uint64_t, std::span<const uint64_t>, uint64_t, std::chrono::milliseconds,
                              const std::function<void()>&, const Callback&) {
  return fail(Errc::unsupported, "calling mallctl in a process is known for x86-64 only");
}
Status Tracee::release() {
  return {};
}
uint64_t Tracee::callback_address() {
  return 0;
}
uint64_t Tracee::unmapped_below() {
  return 0;
}

#endif

}  // namespace jemtrace::read
