#pragma once

#include <cstdint>
#include <span>

#include "locate/structures.hpp"
#include "locate/version.hpp"

namespace jemtrace::locate {

/// ecache_t, extents_t. Of arrays 0 ends the list.
struct KnownCache {
  uint32_t npages[2], lru[2], state, ind;
};

/// decay_t, arena_decay_t.
struct KnownDecay {
  uint32_t time_ms, interval, epoch, deadline, npages_limit, nunpurged, backlog;
};

/// edata_t, extent_t.
struct KnownExtent {
  uint32_t next, state_shift, state_width;
};

/// What is counted of size classes. bin_bytes, bin_stats: of bin_t; large_bytes, large_active: of an entry of
/// stats.lstats.
struct KnownClasses {
  ClassLayout::Bins kind;
  uint32_t bins, bin_bytes, bin_stats, large, large_bytes, large_active, tcaches;
};

/// What a release has whatever its quantum is.
struct KnownParts {
  KnownCache cache;
  KnownDecay decay;
  KnownExtent extent;
  KnownClasses classes;
};

/// A release's arena_t with all that is in it. 0: it has no such member.
struct KnownLayout {
  const char* release;
  Family family;
  uint32_t nactive, ind, base, internal;
  uint32_t pac;  // from 5.3.0: what the caches and decays are in
  uint32_t dirty, muzzy, retained;
  uint32_t decay_dirty, decay_muzzy;
  uint32_t stats;  // from 5.3.0: the pointer to the counters of dirty pages, which those of muzzy ones follow
  uint32_t counters;  // before: these counters themselves
  uint32_t base_blocks, base_allocated;
  KnownParts parts;
};

std::span<const KnownLayout> known_layouts();

}  // namespace jemtrace::locate
