#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <set>
#include <utility>
#include <vector>

namespace jemtrace::advise {

/// The pages of one arena: extents in use, and unused ones in three caches, which jemalloc cuts, joins and
/// chooses by rules of its own (extent.c, eset.c of 5.3).
class Heap {
 public:
  enum State : uint8_t { active, dirty, muzzy, retained };
  using Id = uint32_t;
  static constexpr Id none = ~Id{0};
  static constexpr uint64_t never = ~uint64_t{0};

  /// `oversize_pages`: what becomes dirty as an extent of this size is purged at once.
  explicit Heap(uint64_t oversize_pages = never);

  /// ecache_alloc: the first dirty extent that is large enough, else a muzzy one, a retained one, new memory.
  Id take(uint64_t pages);
  /// ecache_dalloc: it becomes dirty. Returns how many pages were purged at once.
  uint64_t give(Id extent);
  /// ecache_evict: the oldest extents, until no more than `limit` pages are left; from dirty into the muzzy
  /// cache or away, from muzzy away. Returns how many pages went.
  uint64_t evict(State from, uint64_t limit, bool lazily);

  [[nodiscard]] uint64_t pages(State state) const { return pages_[state]; }
  [[nodiscard]] uint64_t pages_of(Id extent) const { return extents_[extent].pages; }
  /// What was purged so far does not count when it is taken again.
  void forget_purges() { purged_.assign(purged_.size(), false); }
  /// Since the start: purged pages that were taken again; muzzy ones that were.
  [[nodiscard]] uint64_t returned() const { return returned_; }
  [[nodiscard]] uint64_t reused() const { return reused_; }

 private:
  struct Extent {
    uint64_t at = 0, pages = 0;
    Id before = none, after = none;  // neighbours in the same mapping
    Id older = none, newer = none;   // in its cache
    State state = active;
  };
  struct Cache {
    std::vector<std::set<std::pair<uint64_t, Id>>> bins;  // by size, lowest address first
    std::vector<uint64_t> filled;                         // a bit for each bin that is not empty
    Id oldest = none, newest = none;
  };

  Id make(const Extent& extent);
  void insert(Id extent, State state);
  void remove(Id extent);
  [[nodiscard]] Id find(State state, uint64_t pages) const;
  Id grow(uint64_t pages);
  void cut(Id extent, uint64_t pages, State rest);
  bool join(Id extent, State with);
  void absorb(Id extent, Id neighbour);
  void away(Id extent);

  uint64_t oversize_pages_;
  std::vector<Extent> extents_;
  std::vector<Id> unused_;
  std::array<Cache, 4> caches_;
  std::array<uint64_t, 4> pages_{};
  std::vector<bool> purged_;  // by page: away, and not taken again
  size_t next_mapping_;       // the class of its size
  uint64_t returned_ = 0, reused_ = 0;
};

}  // namespace jemtrace::advise
