#include "ledger/reading.hpp"

#include <algorithm>

namespace jemtrace::ledger {
namespace {

/// Adds what `of` says of each arena; unknown when one of them does not know, or when there is none.
template <typename Of>
std::optional<uint64_t> sum(const std::vector<ArenaReading>& arenas, uint64_t unit, Of of) {
  std::optional<uint64_t> total;
  for (const ArenaReading& arena : arenas) {
    const std::optional<uint64_t> one = of(arena);
    uint64_t bytes = 0;
    uint64_t grown = 0;
    if (!one || __builtin_mul_overflow(*one, unit, &bytes) ||
        __builtin_add_overflow(total.value_or(0), bytes, &grown)) {
      return std::nullopt;
    }
    total = grown;
  }
  return total;
}

template <typename T>
void fill(std::optional<T>& mine, const std::optional<T>& other) {
  if (!mine) {
    mine = other;
  }
}

void fill(DecayReading& mine, const DecayReading& other) {
  fill(mine.time_ms, other.time_ms);
  fill(mine.limit_pages, other.limit_pages);
  fill(mine.npurge, other.npurge);
  fill(mine.nmadvise, other.nmadvise);
  fill(mine.purged_pages, other.purged_pages);
}

void fill(ArenaReading& mine, const ArenaReading& other) {
  fill(mine.threads, other.threads);
  fill(mine.active_pages, other.active_pages);
  fill(mine.dirty.pages, other.dirty.pages);
  fill(mine.muzzy.pages, other.muzzy.pages);
  fill(mine.retained.pages, other.retained.pages);
  fill(mine.dirty_decay, other.dirty_decay);
  fill(mine.muzzy_decay, other.muzzy_decay);
  fill(mine.base_bytes, other.base_bytes);
  fill(mine.internal_bytes, other.internal_bytes);
  fill(mine.tcache_bytes, other.tcache_bytes);
  fill(mine.allocated_bytes, other.allocated_bytes);
}

}  // namespace

const char* name(Method method) {
  switch (method) {
    case Method::structures:
      return "structures";
    case Method::passive:
      return "passive";
    case Method::call:
      return "call";
    case Method::configuration:
      return "configuration";
  }
  return "structures";
}

Reading::Total Reading::total(uint64_t page_bytes) const {
  Total total;
  total.allocated = sum(arenas, 1, [](const ArenaReading& a) { return a.allocated_bytes; });
  total.active = sum(arenas, page_bytes, [](const ArenaReading& a) { return a.active_pages; });
  total.dirty = sum(arenas, page_bytes, [](const ArenaReading& a) { return a.dirty.pages; });
  total.muzzy = sum(arenas, page_bytes, [](const ArenaReading& a) { return a.muzzy.pages; });
  total.retained = sum(arenas, page_bytes, [](const ArenaReading& a) { return a.retained.pages; });
  total.base = sum(arenas, 1, [](const ArenaReading& a) { return a.base_bytes; });
  total.internal = sum(arenas, 1, [](const ArenaReading& a) { return a.internal_bytes; });
  total.tcache = sum(arenas, 1, [](const ArenaReading& a) { return a.tcache_bytes; });
  return total;
}

void Reading::complete_from(const Reading& other) {
  completed_by = other.method;
  for (ArenaReading& arena : arenas) {
    // Two jemallocs in one process each have an arena 0: which of them the other reading means is open.
    const auto namesakes = std::count_if(arenas.begin(), arenas.end(),
                                         [&](const ArenaReading& a) { return a.index == arena.index; });
    if (namesakes > 1) {
      continue;
    }
    const auto same = std::find_if(other.arenas.begin(), other.arenas.end(),
                                   [&](const ArenaReading& a) { return a.index == arena.index; });
    if (same != other.arenas.end()) {
      fill(arena, *same);
    }
  }
  global = other.global;
  if (!other.classes.empty()) {
    classes = other.classes;
  }
  epoch = other.epoch;
  cost_ns += other.cost_ns;
  reasons.insert(reasons.end(), other.reasons.begin(), other.reasons.end());
}

}  // namespace jemtrace::ledger
