#pragma once

#include <sys/types.h>

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "locate/image.hpp"

/// May mallctl be called on a thread where it is now? jemalloc's mutexes are not recursive: a thread that
/// holds one, or is about to take one, would wait for itself for ever.
namespace jemtrace::read {

/// Why a thread cannot be used, as a clause. Not `lasting`: the next look may find it elsewhere.
struct Refusal {
  std::string reason;
  bool lasting = false;
};

/// Of /proc/PID/task/TID/status.
struct ThreadStatus {
  std::string comm;  // untrusted
  char state = '?';
  pid_t tracer = 0;
  int seccomp = 0;
  bool ignores_segv = false;
  bool shadow_stack = false;
};
/// nullopt: no such file was ever written by a kernel.
std::optional<ThreadStatus> parse_thread_status(std::string_view text);
std::optional<Refusal> refuse_status(const ThreadStatus& status);

/// The system call that a thread is blocked in; of /proc/PID/task/TID/syscall, or of its registers.
struct BlockedCall {
  int64_t number = -1;  // -1: in none
  std::array<uint64_t, 6> args{};
  uint64_t sp = 0, pc = 0;
};
/// nullopt: "running", or rubbish.
std::optional<BlockedCall> parse_blocked_call(std::string_view text);
/// Accepted are waits of a program for the outside. A wait for a lock of the C library is not: fork makes one
/// with all of jemalloc's mutexes held, and no function of jemalloc on the stack.
std::optional<Refusal> refuse_call(const BlockedCall& call);

/// [start, end) of code in the target.
struct CodeRange {
  uint64_t start = 0, end = 0;
};
/// Where an image keeps jemalloc. Of a library it is all code. Of a program it is around the functions that
/// are known: between two of them that are close neighbours lie others of jemalloc. One word of its stack is
/// enough to know a thread inside jemalloc, and no function of jemalloc waits without others of jemalloc
/// above it.
std::vector<CodeRange> code_of(const locate::Image& image, uint64_t bias);
/// True for an address that a call within `range` returns to.
bool returns_into(const CodeRange& range, uint64_t address);
/// The first word that is a return address into one of `code`; nullopt: none.
std::optional<uint64_t> find_return(std::span<const uint64_t> stack, std::span<const CodeRange> code);

/// rt_sigreturn as the C libraries write it: where a signal handler returns to.
inline constexpr size_t sigreturn_bytes = 9;
bool is_sigreturn(std::span<const uint8_t> code);

/// What rax has to hold so that the kernel goes on with the call when the thread resumes. It gives EINTR for
/// some waits when they are stopped, and would to the program: ERESTARTNOHAND is restarted unless a signal
/// handler comes first, and is EINTR then.
uint64_t resumed_result(const BlockedCall& call, uint64_t rax);

}  // namespace jemtrace::read
