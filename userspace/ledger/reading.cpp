#include "ledger/reading.hpp"

namespace jemtrace::ledger {
namespace {

/// The sum over arenas; unknown when there are none, or when any arena's part is.
template <typename Get>
std::optional<uint64_t> sum(const std::vector<ArenaReading>& arenas, Get get) {
  uint64_t total = 0;
  for (const ArenaReading& arena : arenas) {
    const std::optional<uint64_t> one = get(arena);
    if (!one) {
      return std::nullopt;
    }
    total += *one;
  }
  return arenas.empty() ? std::nullopt : std::optional(total);
}

std::optional<uint64_t> times(std::optional<uint64_t> pages, uint64_t page_bytes) {
  return pages ? std::optional(*pages * page_bytes) : std::nullopt;
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
  return "unknown";
}

Reading::Total Reading::total(uint64_t page_bytes) const {
  Total out;
  out.allocated = sum(arenas, [](const ArenaReading& a) { return a.allocated_bytes; });
  out.active = times(sum(arenas, [](const ArenaReading& a) { return a.active_pages; }), page_bytes);
  out.dirty = times(sum(arenas, [](const ArenaReading& a) { return a.dirty.pages; }), page_bytes);
  out.muzzy = times(sum(arenas, [](const ArenaReading& a) { return a.muzzy.pages; }), page_bytes);
  out.retained = times(sum(arenas, [](const ArenaReading& a) { return a.retained.pages; }), page_bytes);
  out.base = sum(arenas, [](const ArenaReading& a) { return a.base_bytes; });
  out.internal = sum(arenas, [](const ArenaReading& a) { return a.internal_bytes; });
  out.tcache = sum(arenas, [](const ArenaReading& a) { return a.tcache_bytes; });
  return out;
}

}  // namespace jemtrace::ledger
