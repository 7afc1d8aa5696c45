#pragma once

#include <sys/types.h>

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "discover/maps.hpp"
#include "locate/image.hpp"
#include "read/call/frames.hpp"
#include "read/call/safe_point.hpp"
#include "read/call/tracee.hpp"
#include "util/file.hpp"
#include "util/result.hpp"

namespace jemtrace::read {

/// A jemalloc in a process: what its file holds, and how far from where it was linked it is mapped.
struct MappedImage {
  const locate::Image* image = nullptr;
  uint64_t bias = 0;
  std::string path;  // untrusted
};

/// One use of mallctl(3).
struct Request {
  enum class Kind { read, read_text, write, invoke };
  Kind kind = Kind::read;
  std::string name;            // "stats.arenas.0.pdirty"
  size_t size = 0;             // of the value read or written
  uint64_t value = 0;          // to be written
  std::string text;            // to be written, as a const char *
  bool with_callback = false;  // to be written: a write_cb that leads to us, and its argument

  static Request read(std::string name, size_t size);
  static Request read_text(std::string name);
  static Request write(std::string name, uint64_t value, size_t size);
  static Request write_text(std::string name, std::string text);
  static Request invoke(std::string name);
};
struct Answer {
  int error = 0;       // errno: ENOENT for a name that this build does not have
  uint64_t value = 0;  // zero-extended from `size`
  std::string text;    // untrusted
};

struct CallLimits {
  std::chrono::milliseconds pause{20};   // a thread is let go when it was held for that long
  std::chrono::milliseconds find{2000};  // until a thread is at a point where calls are safe
  std::chrono::milliseconds call{5000};  // then `slow` is told; the call is waited for all the same
  std::function<void()> slow = nullptr;
};

/// Calls mallctl within a process that runs, on one of its threads that waits for the outside. The other
/// threads run on. Whether a thread can be used is proven each time: safe_point.hpp.
class Caller {
 public:
  /// `images`: all of the process that hold a jemalloc; they have to outlive the object. Errc::unsupported
  /// when mallctl is found in none.
  static Result<Caller> open(const ProcRoot& proc, pid_t pid, std::vector<MappedImage> images,
                             CallLimits limits = {});

  /// One answer for each request, in order. A thread is stopped once or several times for it.
  Result<std::vector<Answer>> run(const std::vector<Request>& requests,
                                  const Tracee::Callback& callback = {});

  /// The longest time that a thread did not run because of us.
  [[nodiscard]] std::chrono::nanoseconds longest_pause() const { return longest_pause_; }
  [[nodiscard]] uint64_t stops() const { return stops_; }
  [[nodiscard]] pid_t pid() const { return pid_; }
  [[nodiscard]] const MappedImage& image() const { return images_.at(used_); }

 private:
  struct Held;

  Caller(const ProcRoot& proc, pid_t pid, std::vector<MappedImage> images, CallLimits limits)
      : proc_(proc), pid_(pid), images_(std::move(images)), limits_(std::move(limits)) {}
  Result<Held> hold(size_t block_bytes);
  Result<Held> try_thread(pid_t tid, size_t block_bytes, Refusal& refusal);
  Status let_go(Held held);
  [[nodiscard]] std::optional<Refusal> look(pid_t tid, BlockedCall& blocked) const;
  std::optional<Refusal> look_at_stack(const Tracee& tracee, const discover::Mappings& maps,
                                       size_t block_bytes);
  std::optional<Refusal> look_for_jemalloc(const Stack& stack, uint64_t pc, uint64_t bp,
                                           const discover::Mappings& maps, const std::set<uint64_t>& returns);

  ProcRoot proc_;
  pid_t pid_;
  std::vector<MappedImage> images_;
  CallLimits limits_;
  size_t used_ = 0;       // of images_
  uint64_t mallctl_ = 0;  // its address
  uint64_t inode_ = 0;    // of the mapping that it lies in
  std::vector<CodeRange> jemalloc_;
  FrameRules rules_;
  std::set<uint64_t> unknown_;  // where a rule was missed
  std::chrono::nanoseconds longest_pause_{0};
  uint64_t stops_ = 0;
};

}  // namespace jemtrace::read
