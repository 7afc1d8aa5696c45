#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "ledger/kernel.hpp"
#include "ledger/reading.hpp"

/// The account of one process: RSS laid out by what jemalloc holds it for.
namespace jemtrace::ledger {

/// What a resident page is for. Each page is in one of them.
enum class Part {
  active,      // in the hands of the program, or in a slab of which some is
  dirty,       // freed; jemalloc keeps it for the next allocation until it decays
  lazyfree,    // muzzy, and the kernel may take it back: MADV_FREE
  redirtied,   // muzzy for jemalloc, written to since: the kernel will not take it
  retained,    // given back, and resident again: a huge page refilled it, or the purge failed
  metadata,    // jemalloc's own
  other_heap,  // anonymous memory that is not jemalloc's: another allocator, mmap by hand
  stacks,
  files,  // mapped files, their private copies, shared memory
  parts,
};
const char* name(Part part);
constexpr size_t part_count = static_cast<size_t>(Part::parts);

/// What the kernel holds of the extents of one arena's caches. nullopt: their ranges are unknown, or reading
/// them took too long.
struct ArenaResidency {
  std::optional<Residency> dirty, muzzy, retained, metadata;
};

/// All that was read around one moment. `after` is read once the kernel's side is: what moved in between is
/// the error.
struct Observation {
  uint64_t page_bytes = 4096;
  uint64_t rss_before_bytes = 0, rss_after_bytes = 0;  // statm
  uint64_t rss_lag_bytes = 0;                          // by which statm may be behind the page tables
  uint64_t lazyfree_lag_bytes = 0;                     // by which smaps' LazyFree may be behind MADV_FREE
  std::vector<Vma> vmas;
  std::optional<Reading> before, after;
  std::vector<ArenaResidency> residency;  // of before->arenas, in their order
};

/// One of jemalloc's states: what it says, and what of that is resident.
struct StateAccount {
  std::optional<uint64_t> bytes, resident_bytes;
};

struct Account {
  uint64_t rss_bytes = 0;                                    // statm
  std::array<std::optional<uint64_t>, part_count> resident;  // by Part
  int64_t unexplained_bytes = 0;                             // rss_bytes minus the sum of `resident`
  uint64_t bound_bytes = 0;  // |unexplained| is at most this: what moved, and how far statm may lag
  uint64_t uncertain_bytes =
      0;  // may be active or other_heap: mappings in which nothing tells whose they are
  StateAccount active, dirty, muzzy, retained, metadata;
  /// Of what is active: allocated, of which thread caches hold a part that the program does not; and the
  /// slack between the blocks in use, which is fragmentation. As jemalloc says, resident or not.
  std::optional<uint64_t> allocated_bytes, tcache_bytes, slack_bytes;
  std::optional<uint64_t> muzzy_not_resident_bytes;  // the kernel has taken them, or nobody ever touched them
  uint64_t lazyfree_lag_bytes = 0;  // of `redirtied` so much may be lazily freed, and not marked yet
  uint64_t lazyfree_bytes = 0, anon_huge_bytes = 0, swap_bytes = 0;  // of the whole process
  std::vector<std::string> notes;

  [[nodiscard]] std::optional<uint64_t> part(Part p) const { return resident[static_cast<size_t>(p)]; }
};

Account make_account(const Observation& seen);

}  // namespace jemtrace::ledger
