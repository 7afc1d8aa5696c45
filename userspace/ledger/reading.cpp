#include "ledger/reading.hpp"

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

}  // namespace jemtrace::ledger
