#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <string>

#include "util/fd.hpp"
#include "util/result.hpp"

/// Runs a piece of this program in a child process that can do nothing but compute on files it was given: no
/// capabilities, no user, no way to open, start or signal anything, bounded memory and time. For what works
/// on data that an attacker may have written.
namespace jemtrace {

/// What a child may use.
struct Budget {
  uint64_t memory_bytes = 0;  // of address space, beyond what this process has at the fork
  std::chrono::seconds cpu{0};
};

/// A file that is handed to the child on its request, and what it may use more for it.
struct Given {
  Fd file;
  Budget more;
};

/// The child's side: asks for a file by a name.
using Ask = std::function<Result<Fd>(const std::string& name)>;
/// Our side: opens it, or refuses. The name comes from the child: trust nothing about it.
using Give = std::function<Result<Given>(const std::string& name)>;
/// What runs in the child. It gets `file` and no other descriptor; what it returns is handed to the parent.
using Work = std::function<std::string(int file, const Ask& ask)>;

struct Confinement {
  std::string path;  // of the file, for messages only
  int file = -1;     // stays the caller's
  Budget budget;
  size_t max_answer = 0;  // bytes
};

/// The bytes that `work` returned; nothing is known of them but their number. An Error when the child
/// crashed, was killed, or took more than it may: Errc::too_large for time and memory, Errc::malformed for a
/// crash, Errc::system when there could be no such child.
Result<std::string> run_confined(const Confinement& confinement, const Work& work, const Give& give);

/// How long the child may take by the clock, when the CPU or the disk is busy with others.
std::chrono::milliseconds wall_limit(std::chrono::seconds cpu);

}  // namespace jemtrace
