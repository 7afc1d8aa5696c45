#include "read/call/safe_point.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <csignal>
#include <cstring>

#include "util/text.hpp"

namespace jemtrace::read {
namespace {

constexpr int64_t futex_call = 202;
constexpr uint64_t futex_command_mask = 0x7f;  // without FUTEX_PRIVATE_FLAG and FUTEX_CLOCK_REALTIME
constexpr uint64_t futex_wait_bitset = 9;
constexpr int64_t erestartnohand = 514;  // the kernel's own: linux/errno.h

/// Interruptible waits of x86-64 that the kernel restarts, or that resumed_result() makes it restart. Not
/// wait4 and waitid: the SIGCHLD of a child of a traced thread counts even where it is ignored, and another
/// thread gets EINTR.
constexpr int64_t waits[] = {
    0,    // read
    7,    // poll
    19,   // readv
    23,   // select
    34,   // pause
    35,   // nanosleep
    43,   // accept
    45,   // recvfrom
    47,   // recvmsg
    128,  // rt_sigtimedwait
    130,  // rt_sigsuspend
    202,  // futex
    219,  // restart_syscall: poll, nanosleep or a futex wait with a timeout that was stopped before
    230,  // clock_nanosleep
    232,  // epoll_wait
    270,  // pselect6
    271,  // ppoll
    281,  // epoll_pwait
    288,  // accept4
    441,  // epoll_pwait2
};

bool is_wait(int64_t number) {
  return std::find(std::begin(waits), std::end(waits), number) != std::end(waits);
}

/// The gap between two known functions that is still taken for jemalloc's.
constexpr uint64_t max_gap = 64 << 10;
/// A library with more code than this holds more than jemalloc.
constexpr uint64_t max_library = 4 << 20;

template <typename T>
bool to_number(std::string_view text, T& value, int base) {
  if (base == 16 && text.starts_with("0x")) {
    text.remove_prefix(2);
  }
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value, base);
  return error == std::errc{} && end == text.data() + text.size();
}

std::string_view take_word(std::string_view& text) {
  const size_t begin = std::min(text.find_first_not_of(" \t\n"), text.size());
  text.remove_prefix(begin);
  const std::string_view word = text.substr(0, text.find_first_of(" \t\n"));
  text.remove_prefix(word.size());
  return word;
}

/// The value of "Key:\tvalue"; empty when there is no such line.
std::string_view field(std::string_view text, std::string_view key) {
  size_t at = 0;
  while (at < text.size()) {
    const size_t newline = std::min(text.find('\n', at), text.size());
    std::string_view line = text.substr(at, newline - at);
    if (line.starts_with(key) && line.substr(key.size()).starts_with(':')) {
      line.remove_prefix(key.size() + 1);
      line.remove_prefix(std::min(line.find_first_not_of(" \t"), line.size()));
      return line;
    }
    at = newline + 1;
  }
  return {};
}

}  // namespace

std::optional<ThreadStatus> parse_thread_status(std::string_view text) {
  ThreadStatus status;
  const std::string_view state = field(text, "State");
  uint64_t ignored = 0;
  if (state.empty() || !to_number(field(text, "TracerPid"), status.tracer, 10) ||
      !to_number(field(text, "SigIgn"), ignored, 16)) {
    return std::nullopt;
  }
  status.comm = field(text, "Name");
  status.state = state.front();
  // Absent where the kernel was built without seccomp.
  if (const std::string_view seccomp = field(text, "Seccomp");
      !seccomp.empty() && !to_number(seccomp, status.seccomp, 10)) {
    return std::nullopt;
  }
  status.ignores_segv = (ignored >> (SIGSEGV - 1) & 1) != 0;
  status.shadow_stack = field(text, "x86_Thread_features").find("shstk") != std::string_view::npos;
  return status;
}

std::optional<Refusal> refuse_status(const ThreadStatus& status) {
  if (status.tracer != 0) {
    return Refusal{fmt::format("it is traced by pid {}", status.tracer), true};
  }
  if (status.seccomp != 0) {
    return Refusal{"it has a seccomp filter, which may kill it for a system call of jemalloc's", true};
  }
  if (status.ignores_segv) {
    return Refusal{"it ignores SIGSEGV, which is how the return of the call is seen", true};
  }
  if (status.shadow_stack) {
    return Refusal{"it has a shadow stack, which knows nothing of the call", true};
  }
  // Its thread-specific data of jemalloc is minimal; a call would make it a full one, with a thread cache.
  if (status.comm == "jemalloc_bg_thd") {
    return Refusal{"it is a background thread of jemalloc", true};
  }
  switch (status.state) {
    case 'S':
      return std::nullopt;
    case 'T':
    case 't':
      return Refusal{"it is stopped", false};
    case 'Z':
    case 'X':
      return Refusal{"it has ended", true};
    default:
      return Refusal{"it is running", false};
  }
}

std::optional<BlockedCall> parse_blocked_call(std::string_view text) {
  BlockedCall call;
  if (!to_number(take_word(text), call.number, 10)) {
    return std::nullopt;
  }
  if (call.number >= 0) {
    for (uint64_t& arg : call.args) {
      if (!to_number(take_word(text), arg, 16)) {
        return std::nullopt;
      }
    }
  }
  if (!to_number(take_word(text), call.sp, 16) || !to_number(take_word(text), call.pc, 16)) {
    return std::nullopt;
  }
  return call;
}

std::optional<Refusal> refuse_call(const BlockedCall& call) {
  if (call.number < 0) {
    return Refusal{"it is in no system call", false};
  }
  if (!is_wait(call.number)) {
    return Refusal{fmt::format("it is in system call {}, which is no wait for the outside", call.number),
                   false};
  }
  if (call.number == futex_call && (call.args[1] & futex_command_mask) != futex_wait_bitset) {
    return Refusal{"it waits for what may be a lock of the C library", false};
  }
  return std::nullopt;
}

std::vector<CodeRange> code_of(const locate::Image& image, uint64_t bias) {
  const auto range = [bias](uint64_t vaddr, uint64_t size) {
    return CodeRange{bias + vaddr, bias + vaddr + size};
  };
  if (image.linkage == locate::Linkage::shared && image.text.size <= max_library) {
    return {range(image.text.vaddr, image.text.size)};
  }
  std::vector<CodeRange> known;
  for (const locate::FoundRole& role : image.roles) {
    known.push_back(range(role.vaddr, role.size));
  }
  if (known.empty()) {
    return {range(image.text.vaddr, image.text.size)};
  }
  known.push_back(range(image.mallctl_vaddr, 1));
  std::sort(known.begin(), known.end(),
            [](const CodeRange& a, const CodeRange& b) { return a.start < b.start; });
  std::vector<CodeRange> merged;
  for (const CodeRange& one : known) {
    if (!merged.empty() && one.start <= merged.back().end + max_gap) {
      merged.back().end = std::max(merged.back().end, one.end);
    } else {
      merged.push_back(one);
    }
  }
  return merged;
}

bool returns_into(const CodeRange& range, uint64_t address) {
  return address > range.start && address <= range.end;
}

std::optional<uint64_t> find_return(std::span<const uint64_t> stack, std::span<const CodeRange> code) {
  for (const uint64_t word : stack) {
    for (const CodeRange& range : code) {
      if (returns_into(range, word)) {
        return word;
      }
    }
  }
  return std::nullopt;
}

bool is_sigreturn(std::span<const uint8_t> code) {
  constexpr uint8_t wide[] = {0x48, 0xc7, 0xc0, 0x0f, 0, 0, 0, 0x0f, 0x05};  // mov $15,%rax; syscall
  constexpr uint8_t narrow[] = {0xb8, 0x0f, 0, 0, 0, 0x0f, 0x05};            // mov $15,%eax; syscall
  const auto begins_with = [code](std::span<const uint8_t> pattern) {
    return code.size() >= pattern.size() && std::equal(pattern.begin(), pattern.end(), code.begin());
  };
  return begins_with(wide) || begins_with(narrow);
}

uint64_t resumed_result(const BlockedCall& call, uint64_t rax) {
  const bool interrupted = is_wait(call.number) && static_cast<int64_t>(rax) == -EINTR;
  return interrupted ? static_cast<uint64_t>(-erestartnohand) : rax;
}

}  // namespace jemtrace::read
