#pragma once

#include <sys/types.h>

#include <chrono>
#include <csignal>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>

#include "read/call/memory.hpp"
#include "read/call/safe_point.hpp"
#include "util/result.hpp"

namespace jemtrace::read {

/// Holds back our own signals: who ends in the middle of a call leaves a thread with wrong registers. SIGKILL
/// and SIGSTOP cannot be held.
class SignalsHeld {
 public:
  SignalsHeld();
  ~SignalsHeld();
  SignalsHeld(const SignalsHeld&) = delete;
  SignalsHeld& operator=(const SignalsHeld&) = delete;

 private:
  sigset_t before_{};
  struct sigaction child_before_ {};
};

/// Lets us run before others, if we may: a thread that we have stopped waits for us.
class Hurry {
 public:
  Hurry();
  ~Hurry();
  Hurry(const Hurry&) = delete;
  Hurry& operator=(const Hurry&) = delete;

 private:
  int policy_;
  bool raised_ = false;
};

/// One thread of another process, stopped by ptrace(2) while the others run on. The object gives it back as
/// it was, in the same system call.
class Tracee {
 public:
  /// What a function in the target is told to call instead of code: gets its second argument, a string.
  using Callback = std::function<void(const std::string& text)>;

  /// Errc::denied without the right to. Returns once the thread has stopped.
  static Result<std::unique_ptr<Tracee>> seize(pid_t pid, pid_t tid);
  ~Tracee();
  Tracee(const Tracee&) = delete;
  Tracee& operator=(const Tracee&) = delete;

  /// Where it has stopped.
  [[nodiscard]] BlockedCall where() const;
  /// rbp.
  [[nodiscard]] uint64_t frame_pointer() const;
  /// False in 32-bit code.
  [[nodiscard]] bool runs_64_bit() const;
  /// True when a signal has stopped the whole process.
  [[nodiscard]] bool process_stopped() const;

  /// Saves what calls change: vector registers, signal mask, and `bytes` of stack at `scratch`. From now on
  /// signals for the thread stay pending.
  Status prepare(uint64_t scratch, size_t bytes);
  /// Calls a function of the target, to its end, however long that takes: there is no way back in the middle
  /// of it. `stack` is where its frame may begin, a multiple of 16. `slow` is told once when it takes longer
  /// than `limit`. Gives the low half of rax.
  Result<uint32_t> call(uint64_t function, std::span<const uint64_t> args, uint64_t stack,
                        std::chrono::milliseconds limit, const std::function<void()>& slow,
                        const Callback& callback);
  /// Gives the thread back. Errc::gone when it has ended meanwhile.
  Status release();

  /// The address to pass for a Callback: nothing is mapped there.
  static uint64_t callback_address();
  /// Below this address nothing may be mapped for calls to be seen to return.
  static uint64_t unmapped_below();

 private:
  struct State;
  explicit Tracee(std::unique_ptr<State> state);

  std::unique_ptr<State> state_;
};

}  // namespace jemtrace::read
