#pragma once

#include <cerrno>
#include <string>
#include <tl/expected.hpp>
#include <utility>

namespace jemtrace {

/// What kind of failure it is, where a caller or the exit status depends on it.
enum class Errc {
  system,       // a system call failed: see Error::sys
  gone,         // the process or file vanished meanwhile
  denied,       // permission is missing
  unsupported,  // this kernel, image or host cannot do it
  malformed,    // input that makes no sense (an ELF, a proc file, an option)
  too_large,    // input beyond the stated bound
  usage,        // the command line is wrong: exit status 2
  no_target,    // nothing selected uses jemalloc: exit status 3
  cannot_run,   // a command: exit status 127 when it was not found, else 126
  cannot_trace  // this host does not allow it: exit status 77
};

/// A failure that a user can meet: what was tried, on which object, errno if there is one, and what to do
/// about it.
struct Error {
  Errc code = Errc::system;
  std::string what;  // one line, without "jemtrace:" and without a full stop
  int sys = 0;       // errno, 0 when none
  std::string hint;  // what to do; may be empty

  /// `what`, followed by the errno text when there is one.
  [[nodiscard]] std::string message() const;
};

template <typename T>
using Result = tl::expected<T, Error>;
using Status = Result<void>;

inline tl::unexpected<Error> fail(Errc code, std::string what, std::string hint = {}) {
  return tl::unexpected<Error>(Error{code, std::move(what), 0, std::move(hint)});
}

/// Failure of a system call; maps ESRCH/ENOENT to gone and EPERM/EACCES to denied. `err` defaults to errno.
tl::unexpected<Error> fail_errno(std::string what, int err = errno, std::string hint = {});

}  // namespace jemtrace

#define JT_CONCAT_(a, b) a##b
#define JT_CONCAT(a, b) JT_CONCAT_(a, b)

/// Returns the error of `expr` from the calling function, if it failed.
#define TRY(expr)                                                        \
  do {                                                                   \
    if (auto try_ = (expr); !try_) {                                     \
      return tl::unexpected<::jemtrace::Error>(std::move(try_).error()); \
    }                                                                    \
  } while (0)

// `decl` is a declaration: it cannot stand in parentheses.
// NOLINTBEGIN(bugprone-macro-parentheses)
#define ASSIGN_OR_RETURN_(tmp, decl, expr)                            \
  auto tmp = (expr);                                                  \
  if (!tmp) {                                                         \
    return tl::unexpected<::jemtrace::Error>(std::move(tmp).error()); \
  }                                                                   \
  decl = std::move(*tmp)
/// `ASSIGN_OR_RETURN(auto x, f());`: x is f()'s value, or the calling function returns f()'s error.
#define ASSIGN_OR_RETURN(decl, expr) ASSIGN_OR_RETURN_(JT_CONCAT(result_, __LINE__), decl, expr)
// NOLINTEND(bugprone-macro-parentheses)
