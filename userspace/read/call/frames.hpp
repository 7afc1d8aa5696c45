#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "discover/maps.hpp"
#include "locate/eh_frame.hpp"
#include "read/call/safe_point.hpp"
#include "util/file.hpp"

/// What on a stack is live. An array that was not yet written to holds what earlier calls left there, return
/// addresses into jemalloc among it: without knowing the frames, a thread with one would be refused for ever.
namespace jemtrace::read {

struct Stack {
  uint64_t start = 0;  // address of the first word: the stack pointer
  std::span<const uint64_t> words;
};

using RuleAt = std::function<std::optional<locate::FrameRule>(uint64_t pc)>;

/// Walks the frames from the innermost on, as far as rules reach. `pc`: behind the system call.
struct Walked {
  std::set<uint64_t> return_slots;  // addresses of the words that are return addresses
  uint64_t end = 0;                 // all below belongs to frames that were walked
};
Walked walk(const Stack& stack, uint64_t pc, uint64_t bp, const RuleAt& rule_at);

/// The first return address into `code` that is live, or may be.
std::optional<uint64_t> find_live_return(const Stack& stack, const Walked& walked,
                                         std::span<const CodeRange> code);

/// The rules of a process's code, learned file by file.
class FrameRules {
 public:
  /// nullopt: not known, or there is none.
  [[nodiscard]] std::optional<locate::FrameRule> at(const discover::Mappings& maps, uint64_t pc) const;
  /// True when each was learned or has no file.
  [[nodiscard]] bool know(const discover::Mappings& maps, const std::set<uint64_t>& pcs) const;
  /// Looks at the files; takes milliseconds for each.
  void learn(const ProcRoot& proc, pid_t pid, const discover::Mappings& maps, const std::set<uint64_t>& pcs);

 private:
  using File = std::pair<uint64_t, uint64_t>;                                    // device, inode
  std::map<std::pair<File, uint64_t>, std::optional<locate::FrameRule>> rules_;  // by offset in the file
};

/// nullptr: nothing is mapped there.
const discover::Mapping* mapping_of(const discover::Mappings& maps, uint64_t address);

}  // namespace jemtrace::read
