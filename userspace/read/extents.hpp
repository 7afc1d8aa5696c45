#pragma once

#include <array>
#include <chrono>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "ledger/reading.hpp"
#include "locate/structures.hpp"
#include "read/memory.hpp"

namespace jemtrace::read {

/// Walks jemalloc's lists in a process that goes on changing them. Bounded in steps and in time; what it
/// returns adds up.
class ExtentWalker {
 public:
  using Clock = std::chrono::steady_clock;
  struct Budget {
    size_t extents = 0;
    Clock::time_point until;
  };

  ExtentWalker(const Memory& memory, const locate::Structures& structures, Budget budget)
      : memory_(memory), structures_(structures), budget_(budget) {}

  /// The extents of a cache, and its number of pages, of one moment. nullopt: `why` says why.
  struct Cache {
    uint64_t pages = 0;
    std::vector<ledger::Range> ranges;
  };
  [[nodiscard]] std::optional<Cache> cache(uint64_t arena, uint32_t index, const locate::CacheLayout& layout,
                                           uint32_t state);
  /// The blocks of a base allocator.
  [[nodiscard]] std::optional<std::vector<ledger::Range>> blocks(uint64_t first);

  [[nodiscard]] const std::string& why() const { return why_; }
  [[nodiscard]] uint64_t discarded() const { return discarded_; }

 private:
  static constexpr uint64_t page = 4096;
  static constexpr size_t max_pages = 4096;

  struct Head {
    uint64_t pages = 0;
    std::vector<uint64_t> first;  // extent of each list
  };
  [[nodiscard]] std::optional<Head> head(uint64_t arena, const locate::CacheLayout& layout) const;
  bool list(uint64_t first, uint32_t index, uint32_t state, Cache& into, uint64_t pages);
  std::optional<uint64_t> word(uint64_t address);
  bool refuse(const char* why);

  const Memory& memory_;
  const locate::Structures& structures_;
  Budget budget_;
  std::unordered_map<uint64_t, std::array<uint8_t, page>> pages_;
  std::string why_;
  uint64_t discarded_ = 0;
};

}  // namespace jemtrace::read
