#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

namespace jemtrace::locate {

/// A variable of the image.
struct Global {
  enum class Kind : uint8_t { number, boolean, text, choice };

  uint64_t vaddr = 0;  // as linked
  uint32_t size = 0;   // bytes: 1, 2, 4 or 8
  bool is_signed = false;
  Kind kind = Kind::number;
  std::vector<std::string> names;  // choice: what the numbers from 0 on mean
};

/// Offsets are in bytes from the start of arena_t, unless said otherwise. nullopt: not found.
struct CacheLayout {
  /// size_t each; their sum is what the cache holds: eset.npages, and guarded_eset.npages from 5.3.0.
  std::vector<uint32_t> npages;
  std::optional<uint32_t> state;  // extent_state_t: 1 dirty, 2 muzzy, 3 retained
  std::optional<uint32_t> ind;    // 5.3.0 and later: the arena's index
  std::vector<uint32_t> lru;      // heads of the lists of its extents, one per entry of npages
};

struct DecayLayout {
  /// npages_limit: from 5.3.0; before, it follows from the backlog.
  std::optional<uint32_t> time_ms, interval, epoch, deadline, npages_limit, nunpurged, backlog;
};

/// Of the counters; relative to the arena, or to what the pointer at `through` leads to.
struct CounterLayout {
  std::optional<uint32_t> through;
  std::optional<uint32_t> npurge, nmadvise, purged;
};

/// edata_t, extent_t: what the lists of a cache hold.
struct ExtentLayout {
  std::optional<uint32_t> bits, address, size_esn, next;
  uint32_t state_shift = 0, state_width = 0;  // of extent_state_t in the bits
};

/// base_t, which the arena's `base` leads to. Its blocks are { size_t size; block *next; }.
struct BaseLayout {
  std::optional<uint32_t> ind;     // up to 5.2: the arena's index
  std::optional<uint32_t> blocks;  // the list of its blocks
  std::optional<uint32_t> allocated;
};

/// What an arena counts of each size class, in builds with statistics.
struct ClassLayout {
  enum class Bins : uint8_t {
    inlined,   // up to 5.1: an array in arena_t
    pointers,  // 5.2: to the shards of each bin
    behind,    // from 5.3.0: the shards of all bins, at the end of arena_t
  };

  /// bin_infos, as linked: { size_t reg_size, slab_size; uint32_t nregs, n_shards; ... }, 40 bytes each.
  std::optional<uint64_t> infos;
  std::optional<uint32_t> bins, large;    // stats.lstats: { uint64_t nmalloc, ndalloc; ... } each
  std::optional<uint32_t> tcaches;        // from 5.1: the list of the thread caches' bins
  uint32_t bin_bytes = 0, bin_stats = 0;  // of one bin_t, and of bin_stats_t in it
  uint32_t large_bytes = 0;               // of one entry of lstats
  std::optional<uint32_t> large_active;   // from 5.3.1: active_bytes in it
  Bins kind = Bins::inlined;
};

/// Where an image keeps jemalloc's numbers.
struct Structures {
  std::string found_by;            // "known layout of 5.3.0"
  std::optional<uint64_t> arenas;  // of arenas[0], as linked; arena_t*, 0 for one that does not exist
  uint32_t max_arenas = 4095;
  std::optional<Global> narenas_total;
  uint32_t page_shift = 12;
  bool stats = true;  // --enable-stats: the counters move
  std::optional<uint32_t> nthreads, nactive, ind, base, internal;
  CacheLayout dirty, muzzy, retained;
  DecayLayout dirty_decay, muzzy_decay;
  CounterLayout dirty_counters, muzzy_counters;
  ExtentLayout extent;
  BaseLayout base_layout;
  ClassLayout classes;
  std::map<std::string, Global> options;  // opt_*, by jemalloc's option names
  std::vector<std::string> evidence;      // for people
  std::vector<std::string> missing;       // what was not found and why, one clause each
};

}  // namespace jemtrace::locate
