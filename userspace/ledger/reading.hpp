#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

/// What jemalloc knows about its memory, as plain data. optional: nullopt is "unknown", which is never 0.
namespace jemtrace::ledger {

/// [start, start + bytes) in the target's address space.
struct Range {
  uint64_t start = 0, bytes = 0;
};

/// One of the three caches of extents that an arena holds back: dirty, muzzy or retained.
struct CacheReading {
  std::optional<uint64_t> pages;  // stats.arenas.<i>.pdirty, pmuzzy; retained: bytes / page
  /// Its extents. nullopt: not asked for, or the walk did not add up to `pages`.
  std::optional<std::vector<Range>> ranges;
};

/// The decay of dirty or of muzzy pages in one arena.
struct DecayReading {
  std::optional<int64_t> time_ms;  // arena.<i>.dirty_decay_ms: -1 never, 0 at once
  std::optional<uint64_t>
      epoch_ns;  // CLOCK_MONOTONIC: when it last looked at its clock, to a 200th of the time
  std::optional<uint64_t> limit_pages;                     // npages_limit: how many may stay unpurged now
  std::optional<uint64_t> npurge, nmadvise, purged_pages;  // unknown when built without stats
  std::optional<uint64_t> deadline_ns;                     // when the next epoch may begin; with epoch_ns
  std::optional<uint64_t> nunpurged_pages;                 // where asked for: pages seen when the epoch began
  std::vector<uint64_t> backlog_pages;  // where asked for: became unused in each of 200 epochs, oldest first
};

/// For slabs and large blocks, since the arena was made.
struct Taken {
  struct Size {
    uint64_t pages = 0, extents = 0;
  };
  uint64_t pages = 0;
  std::vector<Size> sizes;  // those that were asked for, in no order; one may be there more than once
};

struct ArenaReading {
  uint32_t index = 0;
  std::optional<uint64_t> threads;       // application threads assigned to it
  std::optional<uint64_t> active_pages;  // stats.arenas.<i>.pactive
  CacheReading dirty, muzzy, retained;
  DecayReading dirty_decay, muzzy_decay;
  std::optional<uint64_t> base_bytes;  // stats.arenas.<i>.base
  std::optional<uint64_t> internal_bytes;
  std::optional<uint64_t> tcache_bytes;
  std::optional<uint64_t> allocated_bytes;  // small + large
  std::optional<Taken> taken;
  std::optional<std::vector<Range>> metadata;  // the blocks of its base allocator
};

/// The whole allocator, in bytes: stats.allocated and its siblings.
struct Global {
  std::optional<uint64_t> allocated, active, metadata, resident, mapped, retained;
};

/// One size class over all arenas.
struct SizeClass {
  uint64_t bytes = 0;              // arenas.bin.<j>.size, arenas.lextent.<j>.size
  bool large = false;              // an extent of its own
  std::optional<uint64_t> blocks;  // in use, or held by thread caches: curregs, curlextents
};

/// How a value was got; ordered from best to worst for a value that moves.
enum class Method { structures, passive, call, configuration };
const char* name(Method method);

/// One image of one process at one moment (or as near to one as reading without stopping it allows).
struct Reading {
  Method method = Method::structures;
  std::optional<Method> completed_by;  // what `method` did not know came this way
  uint64_t at_ns = 0;                  // CLOCK_MONOTONIC
  uint64_t cost_ns = 0;                // of ours; nothing of the target's
  std::vector<ArenaReading> arenas;
  Global global;
  std::vector<SizeClass> classes;  // ascending; empty: not asked for
  /// Method::call: stats.* are of the moment when somebody last wrote "epoch"; this counts those writes.
  std::optional<uint64_t> epoch;
  /// Boot options by jemalloc's names ("dirty_decay_ms"), as text; from opt_*.
  std::map<std::string, std::string> options;
  uint64_t discarded = 0;            // values read, and thrown away as impossible or torn
  std::vector<std::string> reasons;  // why something is unknown, one clause each

  /// Sums over arenas in bytes; unknown when any arena's is.
  struct Total {
    std::optional<uint64_t> allocated, active, dirty, muzzy, retained, base, internal, tcache;
  };
  [[nodiscard]] Total total(uint64_t page_bytes) const;

  /// Takes from `other` what is unknown here, arena by arena; not where an index stands for two arenas.
  void complete_from(const Reading& other);
};

}  // namespace jemtrace::ledger
