#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "ledger/reading.hpp"
#include "locate/structures.hpp"
#include "read/memory.hpp"

namespace jemtrace::read {

/// Of a build for pages of 4 kB (sc.c), ascending: those below 16 kB, which are in slabs, and all others.
/// `quantum`: 8 or 16.
struct SizeClasses {
  std::vector<uint64_t> small, large;
};
SizeClasses size_classes(uint64_t quantum);

/// Reads what arenas count of each size class: what is allocated, thread caches included, as
/// stats.arenas.<i>.{small,large}.allocated say it, and what thread caches hold of it.
///
/// A bin's numbers change under its lock, which nobody holds for us. They are taken when they agree with each
/// other: what was handed out minus what came back is what is in use, and it fits into the slabs.
class ClassReader {
 public:
  ClassReader(const Memory& memory, const locate::Structures& structures, uint64_t bias)
      : memory_(memory), layout_(structures.classes), nactive_(structures.nactive), bias_(bias) {}

  /// Finds out which classes there are. False: `why` says why they are not known.
  [[nodiscard]] bool open();

  struct Arena {
    uint64_t address = 0;
    // Found; nullopt: unknown.
    std::optional<uint64_t> allocated_bytes, tcache_bytes;
    std::optional<ledger::Taken> taken;
    std::vector<uint64_t> blocks;  // by class; empty where allocated_bytes is unknown
  };
  /// In as many system calls as one arena takes; what does not agree is read again, a few times.
  /// Errc::gone, denied: nothing of the process can be read.
  Status read(std::span<Arena> arenas);
  using Clock = std::chrono::steady_clock;
  /// What thread caches hold; walks their list, two system calls for each cache. From `until` on they are
  /// unknown.
  Status read_tcaches(std::span<Arena> arenas, Clock::time_point until);

  /// Over all arenas; their blocks are unknown where those of an arena are.
  [[nodiscard]] std::vector<ledger::SizeClass> sum(std::span<const Arena> arenas) const;

  [[nodiscard]] const std::string& why() const { return why_; }
  [[nodiscard]] uint64_t discarded() const { return discarded_; }

 private:
  struct Raw;
  Status read_some(std::span<Arena> arenas);
  bool take(Raw& raw, Arena& arena);
  static void add_taken(ledger::Taken& taken, uint64_t pages, uint64_t extents);
  bool take_bins(const Raw& raw, Arena& arena, uint64_t& bytes) const;
  bool take_large(const Raw& raw, Arena& arena, uint64_t& bytes) const;
  Status find_bins(std::span<Raw> raws, std::span<const Arena> arenas);
  Result<std::optional<uint64_t>> tcaches_of(uint64_t arena, Clock::time_point until);
  Status add_tcache(uint64_t small, uint64_t large, std::optional<uint64_t>& bytes);
  bool refuse(const char* why);

  const Memory& memory_;
  const locate::ClassLayout& layout_;
  const std::optional<uint32_t> nactive_;
  uint64_t bias_;
  SizeClasses classes_;
  std::vector<uint32_t> shards_;  // of each bin
  std::vector<uint32_t> blocks_per_slab_, pages_per_slab_;
  size_t all_shards_ = 0;
  std::string why_;
  uint64_t discarded_ = 0;
};

}  // namespace jemtrace::read
